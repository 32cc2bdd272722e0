"""``/v1/fine_tuning/jobs/{id}/events``: a job's story, in pages, or live as server-sent events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Page
from ibllm_core.contract.api.jobs import FineTuningJobEvent
from orchestrator.api.dependencies import JobsReader, SessionOf
from orchestrator.api.errors import Responses
from orchestrator.api.jobs import find
from orchestrator.api.live_events import LiveEvents
from orchestrator.api.openapi import server_sent
from orchestrator.api.pages import page
from orchestrator.db.models import Event
from orchestrator.errors import InvalidRequestError, NotFoundError
from orchestrator.jobs.shown import shown_event

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])
EventId = Annotated[str | None, Query(max_length=128)]
STREAM: Responses = {
    200: {
        "content": {"text/event-stream": {"schema": server_sent("fine_tuning.job.event", "done")}},
        "description": "A page; with `stream=true` server-sent events, each an event object, until the job has ended",
    }
}


@router.get("/{job_id}/events", response_model=Page[FineTuningJobEvent], responses=STREAM)
def events(
    job_id: str,
    request: Request,
    caller: JobsReader,
    session: SessionOf,
    after: EventId = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    stream: Annotated[bool, Query(description="live, oldest first, after Last-Event-ID or from the beginning")] = False,
    last_event_id: Annotated[str | None, Header(max_length=128)] = None,
) -> Page[FineTuningJobEvent] | StreamingResponse:
    """A job's events, newest first; with ``stream`` all of them oldest first, and then each as it happens."""
    find(session, caller, job_id)
    if stream:
        if after:
            raise InvalidRequestError("a stream goes on after the header Last-Event-ID: leave after out", param="after")
        seen = _sequence_of(session, job_id, last_event_id, "Last-Event-ID") if last_event_id else 0
        session.close()  # else each open stream would keep a connection of the database
        live: LiveEvents = request.app.state.live_events
        return StreamingResponse(
            live.stream(job_id, seen), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )
    query = select(Event).where(Event.job_id == job_id).order_by(Event.sequence.desc()).limit(limit + 1)
    if after:
        query = query.where(Event.sequence < _sequence_of(session, job_id, after, "after"))
    return page(session.scalars(query).all(), limit, shown_event)


def _sequence_of(session: Session, job_id: str, event_id: str, param: str) -> int:
    event = session.get(Event, event_id)
    if event is None or event.job_id != job_id:
        raise NotFoundError(f"job {job_id} has no event {event_id!r}", param=param)
    return event.sequence
