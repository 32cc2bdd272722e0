"""``/v1/organization/projects/{project_id}/api_keys``: create, list, retrieve, update, rotate, revoke."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter
from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Deleted, Page
from ibllm_core.contract.api.keys import KeyCreate, KeyOwner, KeyRotate, KeyUpdate, KeyUser, NewKey, ShownKey
from orchestrator.api.admin.listing import After, Limit, rows_after, seconds
from orchestrator.api.admin.rules import InProjectReader, InProjectWriter, open_project_of
from orchestrator.api.dependencies import SessionOf
from orchestrator.api.pages import page
from orchestrator.db.models import ApiKey, Membership, User
from orchestrator.errors import ConflictError, InvalidRequestError, NotFoundError
from orchestrator.tenants.access import Caller, Role, role_of
from orchestrator.tenants.audit import record
from orchestrator.tenants.directory import SERVICE_ACCOUNT, find_user, role_in_project
from orchestrator.tenants.key_rules import check_scopes, ends_at, require_power_over
from orchestrator.tenants.keys import new_key

router = APIRouter(prefix="/organization/projects/{project_id}/api_keys", tags=["keys"])


@router.post("")
def create(body: KeyCreate, caller: InProjectWriter, session: SessionOf) -> NewKey:
    """Make a key for oneself or another member, who may not be above; its value is shown this once."""
    open_project_of(session, caller)
    if body.user_id is None:
        user = session.get_one(User, caller.user_id)  # the operator's is of another organisation
    else:
        user = find_user(session, caller.organization_id, body.user_id, param="user_id")
    role = role_in_project(session, user, caller.project)
    if role is None:
        raise InvalidRequestError(f"{user.id} is no member of this project: add them first", param="user_id")
    check_scopes(caller, role, body.scopes)
    key, value = new_key(
        organization_id=caller.organization_id,
        project_id=caller.project,
        user_id=user.id,
        name=body.name,
        scopes=None if body.scopes is None else [str(scope) for scope in body.scopes],
        expires_at=ends_at(body.expires_in_seconds, body.expires_at),
    )
    session.add(key)
    record(session, caller, "api_key.created", key.id, user_id=user.id, scopes=key.scopes)
    session.commit()
    return NewKey(**_shown(key, user, role).model_dump(), value=value)


@router.get("")
def list_keys(caller: InProjectReader, session: SessionOf, after: After = None, limit: Limit = 20) -> Page[ShownKey]:
    """Keys of the project that were not revoked, newest first."""
    rows = rows_after(
        session,
        select(ApiKey, User, Membership.role)
        .join(User, User.id == ApiKey.user_id)
        .outerjoin(Membership, and_(Membership.project_id == ApiKey.project_id, Membership.user_id == User.id))
        .where(ApiKey.project_id == caller.project),
        (ApiKey.created_at, ApiKey.id),
        ApiKey.revoked_at.is_(None),
        after=after,
        limit=limit,
    )
    return page(rows, limit, lambda row: _shown(row.ApiKey, row.User, _role(row.User, row.role)))


@router.get("/{api_key_id}")
def retrieve(api_key_id: str, caller: InProjectReader, session: SessionOf) -> ShownKey:
    """One key."""
    return _shown(*_find(session, caller, api_key_id))


@router.post("/{api_key_id}")
def update(api_key_id: str, body: KeyUpdate, caller: InProjectWriter, session: SessionOf) -> ShownKey:
    """Replace a key's scopes or its expiry."""
    key, user, role = _find_to_change(session, caller, api_key_id)
    if body.scopes is not None:
        scopes = [str(scope) for scope in body.scopes] or None
        check_scopes(caller, role, scopes)
        key.scopes = scopes
    if body.expires_in_seconds is not None:
        key.expires_at = ends_at(body.expires_in_seconds)
    record(session, caller, "api_key.updated", key.id, **body.model_dump(exclude_unset=True))
    session.commit()
    return _shown(key, user, role)


@router.post("/{api_key_id}/rotate")
def rotate(api_key_id: str, body: KeyRotate, caller: InProjectWriter, session: SessionOf) -> NewKey:
    """Make a key like this one, which goes on working for the grace time and no longer."""
    open_project_of(session, caller)
    old, user, role = _find_to_change(session, caller, api_key_id)
    now = datetime.now(UTC)
    key, value = new_key(
        organization_id=old.organization_id,
        project_id=old.project_id,
        user_id=old.user_id,
        name=old.name,
        scopes=old.scopes,
        expires_at=old.expires_at and now + (old.expires_at - old.created_at),
    )
    end = now + timedelta(seconds=body.grace_seconds)
    old.expires_at = min(old.expires_at or end, end)
    session.add(key)
    record(session, caller, "api_key.rotated", old.id, new_id=key.id, grace_seconds=body.grace_seconds)
    session.commit()
    return NewKey(**_shown(key, user, role).model_dump(), value=value)


@router.delete("/{api_key_id}")
def revoke(api_key_id: str, caller: InProjectWriter, session: SessionOf) -> Deleted:
    """Refuse a key from now on."""
    key, _, role = _find(session, caller, api_key_id, lock=True)
    require_power_over(caller, key, role)
    if key.id == caller.key_id:
        raise ConflictError("this is the key that asks: revoke it with another one", param="api_key_id")
    key.revoked_at = datetime.now(UTC)
    record(session, caller, "api_key.deleted", key.id)
    session.commit()
    return Deleted(id=key.id, object="organization.project.api_key.deleted")


def _find(session: Session, caller: Caller, key_id: str, *, lock: bool = False) -> tuple[ApiKey, User, Role | None]:
    key = session.get(ApiKey, key_id, with_for_update=lock or None)
    if key is None or key.project_id != caller.project or key.revoked_at is not None:
        raise NotFoundError(f"this project has no key {key_id!r}: GET …/api_keys lists them", param="api_key_id")
    user = session.get_one(User, key.user_id)
    return key, user, role_in_project(session, user, caller.project)


def _find_to_change(session: Session, caller: Caller, key_id: str) -> tuple[ApiKey, User, Role]:
    """A key that works, and over which the caller has power."""
    key, user, role = _find(session, caller, key_id, lock=True)
    require_power_over(caller, key, role)
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        raise ConflictError(f"the key {key.hint} has expired: make a new one", param="api_key_id")
    if role is None:
        raise ConflictError(f"{user.id} is no member of this project: add them first", param="api_key_id")
    return key, user, role


def _role(user: User, member_role: str | None) -> Role | None:
    return role_of(member_role, is_owner=user.is_owner, is_operator=user.is_operator)


def _shown(key: ApiKey, user: User, role: Role | None) -> ShownKey:
    """OpenAI's project key, with the scopes beside it."""
    owner = KeyUser(
        id=user.id, name=user.name, email=user.email, role=role, created_at=int(user.created_at.timestamp())
    )
    return ShownKey(
        id=key.id,
        name=key.name,
        redacted_value=key.hint,
        created_at=int(key.created_at.timestamp()),
        expires_at=seconds(key.expires_at),
        last_used_at=seconds(key.last_used_at),
        scopes=key.scopes,
        owner=KeyOwner(type="service_account", service_account=owner)
        if user.kind == SERVICE_ACCOUNT
        else KeyOwner(type="user", user=owner),
        owner_project_access="inactive" if role is None else "active",
    )
