"""``/v1/organization/audit_logs``: who did what, newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from ibllm_core.contract.api.access import LAST_SECOND, Named
from ibllm_core.contract.api.audit import (
    AuditActor,
    AuditDetails,
    AuditKey,
    AuditServiceAccount,
    AuditUser,
    ShownAuditEntry,
)
from ibllm_core.contract.api.common import Page
from orchestrator.api.admin.listing import After, Limit
from orchestrator.api.admin.rules import OrganizationReader
from orchestrator.api.dependencies import SessionOf
from orchestrator.api.pages import page
from orchestrator.db.models import AuditEntry, Project, User
from orchestrator.errors import InvalidRequestError, NotFoundError
from orchestrator.tenants.access import Caller
from orchestrator.tenants.directory import SERVICE_ACCOUNT

router = APIRouter(prefix="/organization/audit_logs", tags=["organization"])
Second = Annotated[int, Query(ge=0, le=LAST_SECOND)]


def many(name: str) -> Any:
    """A filter that OpenAI's clients send as ``name[]=a&name[]=b``."""
    return Query(alias=f"{name}[]", max_length=100)


@router.get("")
def list_entries(
    caller: OrganizationReader,
    session: SessionOf,
    after: After = None,
    before: After = None,
    limit: Limit = 20,
    project_ids: Annotated[list[str] | None, many("project_ids")] = None,
    event_types: Annotated[list[str] | None, many("event_types")] = None,
    actor_ids: Annotated[list[str] | None, many("actor_ids")] = None,
    actor_emails: Annotated[list[str] | None, many("actor_emails")] = None,
    resource_ids: Annotated[list[str] | None, many("resource_ids")] = None,
    later_than: Annotated[Second | None, Query(alias="effective_at[gt]")] = None,
    since: Annotated[Second | None, Query(alias="effective_at[gte]")] = None,
    earlier_than: Annotated[Second | None, Query(alias="effective_at[lt]")] = None,
    until: Annotated[Second | None, Query(alias="effective_at[lte]")] = None,
) -> Page[ShownAuditEntry]:
    """Entries of the organisation that meet every filter. Actors are users, service accounts or keys, by id."""
    if after is not None and before is not None:
        raise InvalidRequestError("give after or before, one of them", param="before")
    query = (
        select(AuditEntry, User, Project)
        .outerjoin(User, User.id == AuditEntry.user_id)
        .outerjoin(Project, Project.id == AuditEntry.project_id)
        .where(
            AuditEntry.organization_id == caller.organization_id,
            *_among(AuditEntry.project_id, project_ids),
            *_among(AuditEntry.action, event_types),
            *_among(AuditEntry.target, resource_ids),
            *_among(User.email, actor_emails),
            *([or_(AuditEntry.user_id.in_(actor_ids), AuditEntry.key_id.in_(actor_ids))] if actor_ids else []),
            *_from(since),
            *_from(None if later_than is None else later_than + 1),
            *_to(until),
            *_to(None if earlier_than is None else earlier_than - 1),
        )
    )
    if before is not None:
        position = _sequence_of(session, caller, before, "before")
        query = query.where(AuditEntry.sequence > position).order_by(AuditEntry.sequence)
        rows = session.execute(query.limit(limit + 1)).tuples().all()
        nearest = page(rows[:limit][::-1], limit, lambda row: _shown(*row))
        return nearest.model_copy(update={"has_more": len(rows) > limit})
    if after is not None:
        query = query.where(AuditEntry.sequence < _sequence_of(session, caller, after, "after"))
    rows = session.execute(query.order_by(AuditEntry.sequence.desc()).limit(limit + 1)).tuples().all()
    return page(rows, limit, lambda row: _shown(*row))


def _sequence_of(session: Session, caller: Caller, entry_id: str, param: str) -> int:
    sequence = session.scalar(
        select(AuditEntry.sequence).where(
            AuditEntry.id == entry_id, AuditEntry.organization_id == caller.organization_id
        )
    )
    if sequence is None:
        raise NotFoundError(f"this log has no entry {entry_id!r}: begin anew without it", param=param)
    return sequence


def _among(column: Any, wanted: list[str] | None) -> list[ColumnElement[bool]]:
    return [column.in_(wanted)] if wanted else []


def _from(second: int | None) -> list[ColumnElement[bool]]:
    return [] if second is None else [AuditEntry.created_at >= datetime.fromtimestamp(second, UTC)]


def _to(second: int | None) -> list[ColumnElement[bool]]:
    """Entries are within their second: what is shown as ``second`` may be almost one later."""
    return [] if second is None else [AuditEntry.created_at < datetime.fromtimestamp(second + 1, UTC)]


def _shown(entry: AuditEntry, user: User | None, project: Project | None) -> ShownAuditEntry:
    """OpenAI's entry: details stand under its type, as what was made or what was asked to change."""
    changed = entry.action.endswith(".updated")
    details = AuditDetails(
        id=entry.target,
        data=None if changed else entry.details,
        changes_requested=entry.details if changed else None,
    )
    return ShownAuditEntry(
        id=entry.id,
        type=entry.action,
        effective_at=int(entry.created_at.timestamp()),
        actor=AuditActor(api_key=_key(entry, user), ip_address=entry.address),
        project=Named(id=project.id, name=project.name) if project else None,
        target=entry.target,
        request_id=entry.request_id,
        **{entry.action: details},
    )


def _key(entry: AuditEntry, user: User | None) -> AuditKey:
    if user is not None and user.kind == SERVICE_ACCOUNT:
        account = AuditServiceAccount(id=user.id)
        return AuditKey(id=entry.key_id, type="service_account", service_account=account)
    return AuditKey(id=entry.key_id, type="user", user=AuditUser(id=entry.user_id, email=user.email if user else None))
