"""``/v1/organization/admin_api_keys``: owners' keys for the organisation, without a project."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Deleted, Page
from ibllm_core.contract.api.keys import AdminKeyCreate, AdminKeyOwner, NewAdminKey, ShownAdminKey
from orchestrator.api.admin.listing import After, Limit, rows_after, seconds
from orchestrator.api.admin.rules import OrganizationReader, OrganizationWriter
from orchestrator.api.dependencies import SessionOf
from orchestrator.api.pages import page
from orchestrator.db.models import ApiKey, User
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.tenants.access import Caller, role_of
from orchestrator.tenants.audit import record
from orchestrator.tenants.key_rules import check_scopes, ends_at, require_power_over
from orchestrator.tenants.keys import new_key

router = APIRouter(prefix="/organization/admin_api_keys", tags=["keys"])


@router.post("")
def create(body: AdminKeyCreate, caller: OrganizationWriter, session: SessionOf) -> NewAdminKey:
    """Make a key of oneself for the organisation; its value is shown this once."""
    user = session.get_one(User, caller.user_id)
    scopes = None if body.scopes is None else [str(scope) for scope in body.scopes]
    check_scopes(caller, caller.role, scopes)
    key, value = new_key(
        organization_id=caller.organization_id,
        project_id=None,
        user_id=user.id,
        name=body.name,
        scopes=scopes,
        expires_at=ends_at(body.expires_in_seconds),
    )
    session.add(key)
    record(session, caller, "api_key.created", key.id, user_id=user.id, scopes=key.scopes)
    session.commit()
    return shown_new(key, user, value)


@router.get("")
def list_keys(
    caller: OrganizationReader,
    session: SessionOf,
    after: After = None,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Page[ShownAdminKey]:
    """Keys of the organisation that were not revoked."""
    rows = rows_after(
        session,
        select(ApiKey, User)
        .join(User, User.id == ApiKey.user_id)
        .where(ApiKey.organization_id == caller.organization_id, ApiKey.project_id.is_(None)),
        (ApiKey.created_at, ApiKey.id),
        ApiKey.revoked_at.is_(None),
        after=after,
        limit=limit,
        ascending=order == "asc",
    )
    return page(rows, limit, lambda row: _shown(row.ApiKey, row.User))


@router.get("/{key_id}")
def retrieve(key_id: str, caller: OrganizationReader, session: SessionOf) -> ShownAdminKey:
    """One key."""
    return _shown(*_find(session, caller, key_id))


@router.delete("/{key_id}")
def revoke(key_id: str, caller: OrganizationWriter, session: SessionOf) -> Deleted:
    """Refuse a key from now on."""
    key, user = _find(session, caller, key_id, lock=True)
    require_power_over(caller, key, role_of(None, is_owner=user.is_owner, is_operator=user.is_operator))
    if key.id == caller.key_id:
        raise ConflictError("this is the key that asks: revoke it with another one", param="key_id")
    key.revoked_at = datetime.now(UTC)
    record(session, caller, "api_key.deleted", key.id)
    session.commit()
    return Deleted(id=key.id, object="organization.admin_api_key.deleted")


def shown_new(key: ApiKey, user: User, value: str) -> NewAdminKey:
    """A key with the value that nobody sees again."""
    return NewAdminKey(**_shown(key, user).model_dump(), value=value)


def _find(session: Session, caller: Caller, key_id: str, *, lock: bool = False) -> tuple[ApiKey, User]:
    key = session.get(ApiKey, key_id, with_for_update=lock or None)
    if (
        key is None
        or key.organization_id != caller.organization_id
        or key.project_id is not None
        or key.revoked_at is not None
    ):
        raise NotFoundError(
            f"there is no key {key_id!r}: GET /v1/organization/admin_api_keys lists them", param="key_id"
        )
    return key, session.get_one(User, key.user_id)


def _shown(key: ApiKey, user: User) -> ShownAdminKey:
    """OpenAI's administration key, with the scopes beside it."""
    return ShownAdminKey(
        id=key.id,
        name=key.name,
        redacted_value=key.hint,
        created_at=int(key.created_at.timestamp()),
        expires_at=seconds(key.expires_at),
        last_used_at=seconds(key.last_used_at),
        scopes=key.scopes,
        owner=AdminKeyOwner(
            id=user.id,
            name=user.name,
            role="owner" if user.is_owner else "reader",
            created_at=int(user.created_at.timestamp()),
        ),
    )
