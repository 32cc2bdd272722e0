"""``/v1/webhook_endpoints``: who is told of a project's jobs, with which secret, and what became of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Deleted, Page
from ibllm_core.contract.api.webhooks import (
    EventType,
    EventTypeList,
    ShownWebhook,
    WebhookCreate,
    WebhookRotate,
    WebhookUpdate,
    WebhookWithSecret,
)
from orchestrator.api.admin.listing import After, Limit, rows_after, seconds
from orchestrator.api.dependencies import ProjectReader, ProjectWriter, SessionOf, SettingsOf
from orchestrator.api.pages import page
from orchestrator.db.models import Project, WebhookEndpoint
from orchestrator.errors import ConflictError, InvalidRequestError, NotFoundError
from orchestrator.ids import new_id
from orchestrator.outbox.sending import RefusedAddressError, judged
from orchestrator.outbox.signing import hint_of, new_secret
from orchestrator.tenants.access import Caller
from orchestrator.tenants.audit import record

router = APIRouter(tags=["webhooks"])
MAX_ENDPOINTS = 20
OLD_SECRET_HOURS = 24


@router.get("/webhook_event_types")
def list_event_types(caller: ProjectReader) -> EventTypeList:
    """All types that endpoints can ask for."""
    return EventTypeList(data=list(EventType))


@router.post("/webhook_endpoints")
def create(body: WebhookCreate, caller: ProjectWriter, session: SessionOf, settings: SettingsOf) -> WebhookWithSecret:
    """Register an address; the secret that signs what it is sent is shown this once."""
    _check_url(body.url, allow_private=settings.private_urls)
    _check_room(session, caller)
    secret = new_secret()
    endpoint = WebhookEndpoint(
        id=new_id("we"),
        project_id=caller.project,
        name=body.name,
        url=body.url,
        secret=secret,
        events=_unique(body.event_types),
    )
    session.add(endpoint)
    record(session, caller, "webhook_endpoint.created", endpoint.id, **body.model_dump(mode="json"))
    session.commit()
    return WebhookWithSecret(**shown(endpoint).model_dump(), signing_secret=secret)


@router.get("/webhook_endpoints")
def list_endpoints(
    caller: ProjectReader, session: SessionOf, after: After = None, limit: Limit = 20
) -> Page[ShownWebhook]:
    """Endpoints of the project, newest first."""
    rows = rows_after(
        session,
        select(WebhookEndpoint).where(WebhookEndpoint.project_id == caller.project),
        (WebhookEndpoint.created_at, WebhookEndpoint.id),
        after=after,
        limit=limit,
    )
    return page(rows, limit, lambda row: shown(row.WebhookEndpoint))


@router.get("/webhook_endpoints/{webhook_endpoint_id}")
def retrieve(webhook_endpoint_id: str, caller: ProjectReader, session: SessionOf) -> ShownWebhook:
    """One endpoint."""
    return shown(find(session, caller, webhook_endpoint_id))


@router.post("/webhook_endpoints/{webhook_endpoint_id}")
def update(
    webhook_endpoint_id: str, body: WebhookUpdate, caller: ProjectWriter, session: SessionOf, settings: SettingsOf
) -> ShownWebhook:
    """Change what is sent where, or whether anything is."""
    if body.url is not None:
        _check_url(body.url, allow_private=settings.private_urls)
    endpoint = find(session, caller, webhook_endpoint_id, lock=True)
    endpoint.name = body.name or endpoint.name
    endpoint.url = body.url or endpoint.url
    endpoint.events = _unique(body.event_types) if body.event_types else endpoint.events
    if body.enabled is True:
        endpoint.disabled_at, endpoint.last_error = None, None
    elif body.enabled is False:
        endpoint.disabled_at = endpoint.disabled_at or datetime.now(UTC)
    if session.is_modified(endpoint):
        endpoint.updated_at = datetime.now(UTC)
        changes = body.model_dump(mode="json", exclude_none=True)
        record(session, caller, "webhook_endpoint.updated", endpoint.id, **changes)
    session.commit()
    return shown(endpoint)


@router.delete("/webhook_endpoints/{webhook_endpoint_id}")
def delete(webhook_endpoint_id: str, caller: ProjectWriter, session: SessionOf) -> Deleted:
    """Remove an endpoint; what is on its way to it is given up."""
    endpoint = find(session, caller, webhook_endpoint_id, lock=True)
    session.delete(endpoint)
    record(session, caller, "webhook_endpoint.deleted", endpoint.id, url=endpoint.url)
    session.commit()
    return Deleted(id=endpoint.id, object="webhook_endpoint.deleted")


@router.post("/webhook_endpoints/{webhook_endpoint_id}/rotate_secret")
def rotate_secret(
    webhook_endpoint_id: str, caller: ProjectWriter, session: SessionOf, body: WebhookRotate | None = None
) -> WebhookWithSecret:
    """Sign with a new secret, and for a day with the old one too where that is asked for."""
    endpoint = find(session, caller, webhook_endpoint_id, lock=True)
    now = datetime.now(UTC)
    keeps_old = body is not None and body.keep_old_secret_active_for_24_hours
    endpoint.old_secret = endpoint.secret if keeps_old else None
    endpoint.old_secret_until = now + timedelta(hours=OLD_SECRET_HOURS) if keeps_old else None
    endpoint.secret = new_secret()
    endpoint.updated_at = now
    record(session, caller, "webhook_endpoint.secret_rotated", endpoint.id, keeps_old=keeps_old)
    session.commit()
    return WebhookWithSecret(**shown(endpoint).model_dump(), signing_secret=endpoint.secret)


def shown(endpoint: WebhookEndpoint) -> ShownWebhook:
    """OpenAI's endpoint, with what became of the last delivery beside it."""
    return ShownWebhook(
        id=endpoint.id,
        name=endpoint.name,
        url=endpoint.url,
        event_types=[EventType(event) for event in endpoint.events],
        signing_secret_hint=hint_of(endpoint.secret),
        created_at=int(endpoint.created_at.timestamp()),
        updated_at=int(endpoint.updated_at.timestamp()),
        enabled=endpoint.disabled_at is None,
        delivered_at=seconds(endpoint.delivered_at),
        last_error=endpoint.last_error,
    )


def find(session: Session, caller: Caller, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint:
    """An endpoint of the caller's project, or ``NotFoundError``."""
    endpoint = session.get(WebhookEndpoint, endpoint_id, with_for_update=lock or None)
    if endpoint is None or endpoint.project_id != caller.project:
        raise NotFoundError(
            f"there is no webhook endpoint {endpoint_id!r}: GET /v1/webhook_endpoints lists them",
            param="webhook_endpoint_id",
        )
    return endpoint


def _check_url(url: str, *, allow_private: bool) -> None:
    try:
        judged(url, allow_private=allow_private)
    except RefusedAddressError as error:
        raise InvalidRequestError(str(error), param="url") from error


def _check_room(session: Session, caller: Caller) -> None:
    session.get(Project, caller.project, with_for_update=True)  # two requests could else both find the last place
    count = session.scalar(select(func.count(WebhookEndpoint.id)).where(WebhookEndpoint.project_id == caller.project))
    if (count or 0) >= MAX_ENDPOINTS:
        raise ConflictError(f"the project has {MAX_ENDPOINTS} webhook endpoints, the most there can be: delete one")


def _unique(event_types: list[EventType]) -> list[str]:
    return list(dict.fromkeys(str(event_type) for event_type in event_types))
