"""``/v1/organization/users``: the people of an organisation, and which of them own it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ibllm_core.contract.api.access import Email
from ibllm_core.contract.api.common import Deleted, Page
from ibllm_core.contract.api.tenants import ShownUser, UserCreate, UserUpdate
from orchestrator.api.admin.listing import After, Limit, rows_after
from orchestrator.api.admin.rules import OrganizationReader, OrganizationWriter
from orchestrator.api.dependencies import SessionOf
from orchestrator.api.pages import page
from orchestrator.db.models import User
from orchestrator.errors import ConflictError, NotFoundError, PermissionDeniedError
from orchestrator.ids import new_id
from orchestrator.tenants.access import Caller, Role
from orchestrator.tenants.audit import record
from orchestrator.tenants.directory import SERVICE_ACCOUNT, delete_user

router = APIRouter(prefix="/organization/users", tags=["organization"])


@router.post("")
def create(body: UserCreate, caller: OrganizationWriter, session: SessionOf) -> ShownUser:
    """Add a person to the organisation; keys and projects are given afterwards."""
    if body.role == "owner":
        caller.require_to_give(Role.OWNER)
    user = User(
        id=new_id("user"),
        organization_id=caller.organization_id,
        name=body.name,
        email=body.email,
        is_owner=body.role == "owner",
    )
    session.add(user)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(f"there is a user with the email {body.email} already", param="email") from error
    record(session, caller, "user.added", user.id, role=body.role, email=body.email)
    session.commit()
    return shown(user)


@router.get("")
def list_users(
    caller: OrganizationReader,
    session: SessionOf,
    after: After = None,
    limit: Limit = 20,
    emails: Annotated[list[Email] | None, Query(alias="emails[]", max_length=100)] = None,
) -> Page[ShownUser]:
    """Users of the organisation, service accounts among them, newest first."""
    rows = rows_after(
        session,
        select(User).where(User.organization_id == caller.organization_id),
        (User.created_at, User.id),
        *([User.email.in_(emails)] if emails else []),
        after=after,
        limit=limit,
    )
    return page(rows, limit, lambda row: shown(row.User))


@router.get("/{user_id}")
def retrieve(user_id: str, caller: OrganizationReader, session: SessionOf) -> ShownUser:
    """One user."""
    user = session.get(User, user_id)
    if user is None or user.organization_id != caller.organization_id:
        raise _not_found(user_id)
    return shown(user)


@router.post("/{user_id}")
def update_role(user_id: str, body: UserUpdate, caller: OrganizationWriter, session: SessionOf) -> ShownUser:
    """Make a user an owner, or no longer one; there is always an owner left."""
    user = _find_to_change(session, caller, user_id)
    if user.kind == SERVICE_ACCOUNT:
        raise ConflictError(f"{user_id} is a service account, which has a role in its project only", param="user_id")
    caller.require_to_give(Role.OWNER)
    if user.is_owner and body.role != "owner":
        _require_other_owner(session, user)
    user.is_owner = body.role == "owner"
    record(session, caller, "user.updated", user.id, role=body.role)
    session.commit()
    return shown(user)


@router.delete("/{user_id}")
def delete(user_id: str, caller: OrganizationWriter, session: SessionOf) -> Deleted:
    """Remove a user with all memberships and keys; there is always an owner left."""
    user = _find_to_change(session, caller, user_id)
    if user.id == caller.user_id:
        raise ConflictError("this key is the user's own: ask another owner", param="user_id")
    if user.is_owner:
        _require_other_owner(session, user)
    delete_user(session, user)
    record(session, caller, "user.deleted", user.id, email=user.email)
    session.commit()
    return Deleted(id=user.id, object="organization.user.deleted")


def shown(user: User) -> ShownUser:
    """OpenAI's organisation user."""
    return ShownUser(
        id=user.id,
        name=user.name,
        email=user.email,
        role="owner" if user.is_owner else "reader",
        added_at=int(user.created_at.timestamp()),
        is_service_account=user.kind == SERVICE_ACCOUNT,
    )


def _find_to_change(session: Session, caller: Caller, user_id: str) -> User:
    """A user, with all owners held until the transaction ends, so that two requests cannot remove the last two."""
    held = select(User).where(
        User.organization_id == caller.organization_id, User.is_owner.is_(True) | (User.id == user_id)
    )
    users = {user.id: user for user in session.scalars(held.order_by(User.id).with_for_update())}
    if user_id not in users:
        raise _not_found(user_id)
    user = users[user_id]
    if user.is_operator:
        raise PermissionDeniedError(f"{user_id} is the operator of the installation: nobody changes that here")
    return user


def _require_other_owner(session: Session, user: User) -> None:
    others = select(User.id).where(
        User.organization_id == user.organization_id,
        User.is_owner.is_(True),
        User.is_operator.is_(False),
        User.id != user.id,
    )
    if session.scalar(others.limit(1)) is None:
        raise ConflictError(
            f"{user.id} is the last owner of the organization: make another owner first", param="user_id"
        )


def _not_found(user_id: str) -> NotFoundError:
    return NotFoundError(f"there is no user {user_id!r}: GET /v1/organization/users lists them", param="user_id")
