"""``/v1/webhook_endpoints/{id}``: what an endpoint was sent, and an example to try it."""

from __future__ import annotations

import threading

from fastapi import APIRouter
from sqlalchemy import select

from ibllm_core.contract.api.common import Page
from ibllm_core.contract.api.webhooks import ShownDelivery, WebhookEvent, WebhookTest, WebhookTestResult
from orchestrator.api.admin.listing import After, Limit, seconds
from orchestrator.api.admin.webhooks import find
from orchestrator.api.dependencies import ProjectReader, ProjectWriter, SessionOf, SettingsOf
from orchestrator.api.pages import page
from orchestrator.db.models import OutboxMessage
from orchestrator.errors import InvalidRequestError, NotFoundError, RateLimitError
from orchestrator.outbox.messages import Kind
from orchestrator.outbox.sending import SEND_SECONDS, RefusedAddressError, SendingError, send
from orchestrator.outbox.webhooks import new_event, secrets_of
from orchestrator.tenants.audit import record

router = APIRouter(prefix="/webhook_endpoints/{webhook_endpoint_id}", tags=["webhooks"])
# Each test may hold a thread for as long as the endpoint is slow; the other routes need threads too.
_tests = threading.BoundedSemaphore(4)


@router.post("/test")
def test(
    webhook_endpoint_id: str, body: WebhookTest, caller: ProjectWriter, session: SessionOf, settings: SettingsOf
) -> WebhookTestResult:
    """Send an example at once, of a job that does not exist, and tell what the endpoint answers."""
    endpoint = find(session, caller, webhook_endpoint_id)
    event = new_event(body.event_type, "ftjob-example")
    record(session, caller, "webhook_endpoint.tested", endpoint.id, event_type=body.event_type)
    session.commit()
    session.close()  # lends its connection to others while the endpoint thinks
    if not _tests.acquire(blocking=False):
        raise RateLimitError("other endpoints are being tested: try again in a moment", retry_after=SEND_SECONDS)
    try:
        status = send(endpoint.url, event, secrets_of(endpoint), allow_private=settings.private_urls)
    except (RefusedAddressError, SendingError) as error:
        raise InvalidRequestError(
            f"nothing could be sent: {error}; check the endpoint's url", param="url", code="endpoint_unreachable"
        ) from error
    finally:
        _tests.release()
    return WebhookTestResult(webhook_endpoint_id=endpoint.id, event_type=body.event_type, status_code=status)


@router.get("/deliveries")
def list_deliveries(
    webhook_endpoint_id: str, caller: ProjectReader, session: SessionOf, after: After = None, limit: Limit = 20
) -> Page[ShownDelivery]:
    """What the endpoint was sent in the last week, or is still to be, newest first."""
    endpoint = find(session, caller, webhook_endpoint_id)
    query = (
        select(OutboxMessage)
        .where(OutboxMessage.lane == endpoint.id, OutboxMessage.kind == Kind.WEBHOOK)
        .order_by(OutboxMessage.id.desc())
        .limit(limit + 1)
    )
    if after is not None:
        cursor = session.scalar(
            query.with_only_columns(OutboxMessage.id).where(OutboxMessage.payload["event"]["id"].astext == after)
        )
        if cursor is None:
            raise NotFoundError(f"this list has no {after!r} to go on after: begin anew without it", param="after")
        query = query.where(OutboxMessage.id < cursor)
    return page(session.scalars(query).all(), limit, _delivery)


def _delivery(message: OutboxMessage) -> ShownDelivery:
    event = WebhookEvent.model_validate(message.payload["event"])
    is_done = message.done_at is not None
    finished = "delivered" if message.last_error is None else "failed"
    return ShownDelivery(
        id=event.id,
        created_at=event.created_at,
        event_type=event.type,
        job_id=event.data.id,
        status=finished if is_done else "pending",
        attempts=message.attempts,
        finished_at=seconds(message.done_at),
        next_attempt_at=None if is_done else seconds(message.next_at),
        last_error=message.last_error,
    )
