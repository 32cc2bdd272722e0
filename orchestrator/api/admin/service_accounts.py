"""``/v1/organization/projects/{project_id}/service_accounts``: programs that act in a project, each with a key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Deleted, Page
from ibllm_core.contract.api.tenants import (
    NewServiceAccount,
    ServiceAccountCreate,
    ServiceAccountKey,
    ShownServiceAccount,
)
from orchestrator.api.admin.listing import After, Limit, rows_after, seconds
from orchestrator.api.admin.rules import InProjectReader, InProjectWriter, open_project_of
from orchestrator.api.dependencies import SessionOf
from orchestrator.api.pages import page
from orchestrator.db.models import Membership, User
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ids import new_id
from orchestrator.tenants.access import Caller, Role
from orchestrator.tenants.audit import record
from orchestrator.tenants.directory import SERVICE_ACCOUNT, delete_user, member_role
from orchestrator.tenants.keys import new_key

router = APIRouter(prefix="/organization/projects/{project_id}/service_accounts", tags=["projects"])


@router.post("")
def create(body: ServiceAccountCreate, caller: InProjectWriter, session: SessionOf) -> NewServiceAccount:
    """Make a service account with a role and a key, whose value is shown this once."""
    open_project_of(session, caller)
    role = member_role(body.role)
    caller.require_to_give(role)
    account = User(
        id=new_id("svc"), organization_id=caller.organization_id, kind=SERVICE_ACCOUNT, name=body.name, email=None
    )
    session.add(account)
    session.flush()
    membership = Membership(project_id=caller.project, user_id=account.id, role=role)
    key, value = new_key(
        organization_id=caller.organization_id,
        project_id=caller.project,
        user_id=account.id,
        name=body.name,
        expires_at=datetime.now(UTC) + timedelta(seconds=body.expires_in_seconds) if body.expires_in_seconds else None,
    )
    session.add_all([membership, key])
    record(session, caller, "service_account.created", account.id, role=role, name=body.name)
    record(session, caller, "api_key.created", key.id, user_id=account.id)
    session.commit()
    first = ServiceAccountKey(
        id=key.id,
        name=key.name,
        created_at=int(key.created_at.timestamp()),
        expires_at=seconds(key.expires_at),
        value=value,
    )
    return NewServiceAccount(**_shown(account, membership).model_dump(), api_key=first)


@router.get("")
def list_accounts(
    caller: InProjectReader, session: SessionOf, after: After = None, limit: Limit = 20
) -> Page[ShownServiceAccount]:
    """Service accounts of the project, newest first."""
    rows = rows_after(
        session,
        select(User, Membership)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.project_id == caller.project, User.kind == SERVICE_ACCOUNT),
        (User.created_at, User.id),
        after=after,
        limit=limit,
    )
    return page(rows, limit, lambda row: _shown(row.User, row.Membership))


@router.get("/{service_account_id}")
def retrieve(service_account_id: str, caller: InProjectReader, session: SessionOf) -> ShownServiceAccount:
    """One service account."""
    return _shown(*_find(session, caller, service_account_id))


@router.delete("/{service_account_id}")
def delete(service_account_id: str, caller: InProjectWriter, session: SessionOf) -> Deleted:
    """Remove a service account with its keys."""
    account, _ = _find(session, caller, service_account_id)
    if account.id == caller.user_id:
        raise ConflictError("this key is the service account's own: use another one", param="service_account_id")
    delete_user(session, account)
    record(session, caller, "service_account.deleted", account.id, name=account.name)
    session.commit()
    return Deleted(id=account.id, object="organization.project.service_account.deleted")


def _find(session: Session, caller: Caller, account_id: str) -> tuple[User, Membership]:
    account = session.get(User, account_id, with_for_update=True)
    membership = session.get(Membership, (caller.project, account_id)) if account else None
    if account is None or membership is None or account.kind != SERVICE_ACCOUNT:
        raise NotFoundError(
            f"this project has no service account {account_id!r}: GET …/service_accounts lists them",
            param="service_account_id",
        )
    return account, membership


def _shown(account: User, membership: Membership) -> ShownServiceAccount:
    return ShownServiceAccount(
        id=account.id,
        name=account.name,
        role=Role(membership.role),
        created_at=int(account.created_at.timestamp()),
    )
