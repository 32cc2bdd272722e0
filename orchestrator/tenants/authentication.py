"""From the headers of a request to its caller: one query, nothing cached, so that a revoked key is refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, func, select, update
from sqlalchemy.orm import Session

from orchestrator.db.models import ApiKey, Membership, Organization, Project, User
from orchestrator.db.statements import table_of
from orchestrator.errors import AuthenticationError
from orchestrator.tenants.access import Caller, Role, role_of
from orchestrator.tenants.keys import hash_of

LAST_USE_SECONDS = 60  # how exact last_used_at is: a write for each request would cost more than it tells

_QUERY = (
    select(
        *table_of(ApiKey).c,  # as a row: an object of the unit of work would cost as much as the query
        Membership.role,
        User.is_owner,
        User.is_operator,
        Project.archived_at,
        Project.requests_per_minute,
        Project.max_queued_jobs,
        func.now().label("now"),
    )
    .join(User, User.id == ApiKey.user_id)
    .outerjoin(Project, Project.id == ApiKey.project_id)
    .outerjoin(Membership, and_(Membership.project_id == ApiKey.project_id, Membership.user_id == ApiKey.user_id))
    .where(ApiKey.sha256 == bindparam("sha256"))
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a request shows of its caller."""

    token: str
    organization: str | None = None
    project: str | None = None
    address: str = ""
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a caller acts."""

    organization_id: str
    project_id: str | None = None
    archived_at: datetime | None = None
    requests_per_minute: int | None = None
    max_queued_jobs: int | None = None


def authenticate(session: Session, shown: Shown) -> Caller:
    """The caller; ``AuthenticationError`` for a key that is missing, unknown, revoked, expired, or of elsewhere."""
    if not shown.token:
        raise AuthenticationError("the API key is missing: send `Authorization: Bearer <key>`")
    key = session.execute(_QUERY, {"sha256": hash_of(shown.token)}).first()
    if key is None:
        raise AuthenticationError("the API key is wrong: `ibllm keys` makes a new one")
    _check_key(key)
    role = role_of(key.role, is_owner=key.is_owner, is_operator=key.is_operator)
    if role is None:
        raise AuthenticationError(f"the user of the key {key.hint} may not act here any more: ask an admin or an owner")
    own = _Place(
        organization_id=key.organization_id,
        project_id=key.project_id,
        archived_at=key.archived_at,
        requests_per_minute=key.requests_per_minute,
        max_queued_jobs=key.max_queued_jobs,
    )
    place = _chosen(session, shown, own, role)
    if place.archived_at is not None:
        raise AuthenticationError(
            f"the project {place.project_id} is archived: use a key of another one", code="project_archived"
        )
    _note_use(session, key)
    return Caller(
        organization_id=place.organization_id,
        project_id=place.project_id,
        user_id=key.user_id,
        key_id=key.id,
        role=role,
        scopes=None if key.scopes is None else frozenset(key.scopes),
        requests_per_minute=place.requests_per_minute,
        max_queued_jobs=place.max_queued_jobs,
        address=shown.address,
        request_id=shown.request_id,
    )


def _check_key(key: Any) -> None:
    if key.revoked_at is not None and key.revoked_at <= key.now:
        raise AuthenticationError(
            f"the API key {key.hint} was revoked: `ibllm keys` makes a new one", code="revoked_api_key"
        )
    if key.expires_at is not None and key.expires_at <= key.now:
        raise AuthenticationError(
            f"the API key {key.hint} has expired: `ibllm keys` makes a new one", code="expired_api_key"
        )


def _chosen(session: Session, shown: Shown, own: _Place, role: Role) -> _Place:
    """The key's own place, unless the headers name another one where the role may act too."""
    place = own
    if shown.project not in (None, "", own.project_id):
        place = _other_project(session, own, shown.project, role)
    elif shown.organization not in (None, "", own.organization_id) and role is Role.OPERATOR:
        organization = session.get(Organization, shown.organization)
        place = _Place(organization_id=organization.id) if organization else own
    if shown.organization not in (None, "", place.organization_id):
        raise AuthenticationError(
            f"this key does not belong to organization {shown.organization!r}: leave it out",
            code="mismatched_organization",
        )
    return place


def _other_project(session: Session, own: _Place, wanted: str | None, role: Role) -> _Place:
    """Owners' keys may act in all projects of their organisation, the operator's in all there are."""
    project = session.get(Project, wanted) if role in (Role.OWNER, Role.OPERATOR) else None
    if project is None or (role is Role.OWNER and project.organization_id != own.organization_id):
        raise AuthenticationError(
            f"this key does not belong to project {wanted!r}: use one that does", code="mismatched_project"
        )
    return _Place(
        organization_id=project.organization_id,
        project_id=project.id,
        archived_at=project.archived_at,
        requests_per_minute=project.requests_per_minute,
        max_queued_jobs=project.max_queued_jobs,
    )


def _note_use(session: Session, key: Any) -> None:
    if key.last_used_at is None or key.now - key.last_used_at > timedelta(seconds=LAST_USE_SECONDS):
        session.execute(update(ApiKey).where(ApiKey.id == key.id).values(last_used_at=datetime.now(UTC)))
        session.commit()
