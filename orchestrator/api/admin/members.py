"""``/v1/organization/projects/{project_id}/users``: who has which role in a project."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Deleted, Page
from ibllm_core.contract.api.tenants import MemberCreate, MemberUpdate, ShownMember
from orchestrator.api.admin.listing import After, Limit, rows_after
from orchestrator.api.admin.rules import InProjectReader, InProjectWriter, open_project_of
from orchestrator.api.dependencies import SessionOf
from orchestrator.api.pages import page
from orchestrator.db.models import ApiKey, Membership, User
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.tenants.access import Caller, Role
from orchestrator.tenants.audit import record
from orchestrator.tenants.directory import SERVICE_ACCOUNT, find_user_by, member_role

router = APIRouter(prefix="/organization/projects/{project_id}/users", tags=["projects"])


@router.post("")
def add(body: MemberCreate, caller: InProjectWriter, session: SessionOf) -> ShownMember:
    """Give a user of the organisation a role in the project."""
    open_project_of(session, caller)
    role = member_role(body.role)
    caller.require_to_give(role)
    user = find_user_by(session, caller.organization_id, user_id=body.user_id, email=body.email)
    if user.kind == SERVICE_ACCOUNT:
        raise ConflictError(f"{user.id} is a service account, which has one project: make another one", param="user_id")
    user_id = user.id  # a failed flush takes the row away
    membership = Membership(project_id=caller.project, user_id=user_id, role=role)
    session.add(membership)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(
            f"{user_id} is a member already: change the role with POST …/users/{user_id}", param="user_id"
        ) from error
    record(session, caller, "user.added", user_id, role=role)
    session.commit()
    return shown(membership, user)


@router.get("")
def list_members(
    caller: InProjectReader, session: SessionOf, after: After = None, limit: Limit = 20
) -> Page[ShownMember]:
    """Members of the project, service accounts among them, newest first; owners of the organisation need not be any."""
    rows = rows_after(
        session,
        select(Membership, User)
        .join(User, User.id == Membership.user_id)
        .where(Membership.project_id == caller.project),
        (Membership.added_at, Membership.user_id),
        after=after,
        limit=limit,
    )
    return page(rows, limit, lambda row: shown(row.Membership, row.User))


@router.get("/{user_id}")
def retrieve(user_id: str, caller: InProjectReader, session: SessionOf) -> ShownMember:
    """One member."""
    return shown(*_find(session, caller, user_id))


@router.post("/{user_id}")
def update_role(user_id: str, body: MemberUpdate, caller: InProjectWriter, session: SessionOf) -> ShownMember:
    """Change a member's role; the member's keys follow at once."""
    open_project_of(session, caller)
    membership, user = _find(session, caller, user_id)
    role = member_role(body.role)
    caller.require_to_give(role)
    membership.role = role
    record(session, caller, "user.updated", user.id, role=role)
    session.commit()
    return shown(membership, user)


@router.delete("/{user_id}")
def remove(user_id: str, caller: InProjectWriter, session: SessionOf) -> Deleted:
    """End a membership and revoke the member's keys for the project."""
    membership, user = _find(session, caller, user_id)
    if user.kind == SERVICE_ACCOUNT:
        raise ConflictError(f"{user.id} is a service account: DELETE …/service_accounts/{user.id}", param="user_id")
    session.delete(membership)
    session.execute(
        update(ApiKey)
        .where(ApiKey.project_id == caller.project, ApiKey.user_id == user.id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=datetime.now(UTC))
    )
    record(session, caller, "user.deleted", user.id, email=user.email)
    session.commit()
    return Deleted(id=user.id, object="organization.project.user.deleted")


def shown(membership: Membership, user: User) -> ShownMember:
    """OpenAI's project user, with our roles."""
    return ShownMember(
        id=user.id,
        name=user.name,
        email=user.email,
        role=Role(membership.role),
        added_at=int(membership.added_at.timestamp()),
    )


def _find(session: Session, caller: Caller, user_id: str) -> tuple[Membership, User]:
    membership = session.get(Membership, (caller.project, user_id), with_for_update=True)
    user = session.get(User, user_id) if membership else None
    if membership is None or user is None:
        raise NotFoundError(f"this project has no user {user_id!r}: GET …/users lists them", param="user_id")
    return membership, user
