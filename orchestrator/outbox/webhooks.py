"""Webhooks: jobs announce what became of them, and a courier tells the endpoints of their projects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract.api.webhooks import EventType, JobReference, WebhookEvent
from orchestrator.db.models import Job, WebhookEndpoint
from orchestrator.ids import new_id
from orchestrator.outbox.backoff import Backoff
from orchestrator.outbox.courier import Courier, Undeliverable
from orchestrator.outbox.messages import Kind, add
from orchestrator.outbox.sending import RefusedAddressError, SendingError, send
from orchestrator.settings import ServiceSettings

BACKOFF = Backoff(first=5.0, longest=3600.0)
GIVE_UP = timedelta(hours=24)
NUM_THREADS = 8
GONE = 410


def announce(session: Session, job: Job, event_type: EventType) -> None:
    """Tell the enabled endpoints of the job's project that want to know; in the caller's transaction."""
    event = new_event(event_type, job.id)
    endpoints = select(WebhookEndpoint.id, WebhookEndpoint.events).where(
        WebhookEndpoint.project_id == job.project_id, WebhookEndpoint.disabled_at.is_(None)
    )
    for endpoint_id, wanted in session.execute(endpoints).tuples():
        if event_type in wanted:
            payload = {"endpoint_id": endpoint_id, "event": event.model_dump(mode="json")}
            add(session, Kind.WEBHOOK, payload, lane=endpoint_id)


def new_event(event_type: EventType, job_id: str) -> WebhookEvent:
    """An event that happens now."""
    now = int(datetime.now(UTC).timestamp())
    return WebhookEvent(id=new_id("evt"), created_at=now, type=event_type, data=JobReference(id=job_id))


def webhook_courier(sessions: sessionmaker[Session], settings: ServiceSettings) -> Courier:
    """The courier of webhooks; it runs beside the scheduler."""
    handle = partial(deliver, sessions, allow_private=settings.private_urls)
    return Courier(sessions, Kind.WEBHOOK, handle, backoff=BACKOFF, num_threads=NUM_THREADS)


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class _Endpoint:
    """What is needed of an endpoint once its transaction is over."""

    id: str
    url: str
    secrets: list[str]


class NotDeliveredError(Exception):
    """The endpoint did not take it; later it may."""


def deliver(
    sessions: sessionmaker[Session],
    payload: dict[str, Any],
    *,
    allow_private: bool,
    now: Callable[[], datetime] = utc_now,
) -> None:
    """Send an event. ``Undeliverable`` where the endpoint is gone, disabled, or has not taken it for a day."""
    event = WebhookEvent.model_validate(payload["event"])
    endpoint = _load(sessions, payload["endpoint_id"])
    is_late = now() - datetime.fromtimestamp(event.created_at, UTC) >= GIVE_UP
    try:
        status = send(endpoint.url, event, endpoint.secrets, allow_private=allow_private)
    except (RefusedAddressError, SendingError) as error:
        problem = str(error)
    else:
        if 200 <= status < 300:
            _note(sessions, endpoint.id, delivered_at=now(), last_error=None)
            return
        problem = f"{endpoint.url.partition('?')[0]} answers with status {status}"
        if status == GONE:
            _note(sessions, endpoint.id, disabled_at=now(), last_error=f"{problem}: the endpoint is disabled")
            raise Undeliverable(problem)
    if is_late:
        hours = GIVE_UP.total_seconds() / 3600
        _note(sessions, endpoint.id, last_error=f"{event.id} was given up after {hours:.0f} hours: {problem}")
        raise Undeliverable(problem)
    _note(sessions, endpoint.id, last_error=problem)
    raise NotDeliveredError(problem)


def _load(sessions: sessionmaker[Session], endpoint_id: str) -> _Endpoint:
    with sessions() as session:
        endpoint = session.get(WebhookEndpoint, endpoint_id)
    if endpoint is None:
        raise Undeliverable("the endpoint was deleted")
    if endpoint.disabled_at is not None:
        raise Undeliverable("the endpoint is disabled")
    return _Endpoint(id=endpoint.id, url=endpoint.url, secrets=secrets_of(endpoint))


def secrets_of(endpoint: WebhookEndpoint) -> list[str]:
    """The secret, and the one before it while that is still valid."""
    until = endpoint.old_secret_until
    if endpoint.old_secret is None or until is None or until <= datetime.now(UTC):
        return [endpoint.secret]
    return [endpoint.secret, endpoint.old_secret]


def _note(sessions: sessionmaker[Session], endpoint_id: str, **values: Any) -> None:
    with sessions.begin() as session:
        session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(**values))
