"""Jobs' events as they happen, for any number of listeners.

One look at the database for all listeners of this process, twice a second and only while somebody listens. Nothing is
pushed by the database: its notifications would make all commits of the service wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract.states import JobStatus
from orchestrator.db.models import Event, Job
from orchestrator.jobs.shown import shown_event

LOOK_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0  # proxies close what is silent for longer
BATCH = 500
log = logging.getLogger(__name__)


class LiveEvents:
    """Streams of events, and the one look for all of them."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._newest: dict[str, tuple[int, str]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def stream(self, job_id: str, seen: int) -> AsyncIterator[str]:
        """Server-sent events of a job after the sequence ``seen``; ends when the job has ended and all is told."""
        changed = asyncio.Event()
        self._listeners[job_id].add(changed)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            while True:
                changed.clear()
                events, is_final = await run_in_threadpool(self._after, job_id, seen)
                for event in events:
                    seen = event.sequence
                    shown = shown_event(event)
                    yield f"id: {event.id}\nevent: {shown.object}\ndata: {shown.model_dump_json()}\n\n"
                if len(events) == BATCH:
                    continue
                if is_final:
                    yield "event: done\ndata: [DONE]\n\n"
                    return
                try:
                    await asyncio.wait_for(changed.wait(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._listeners[job_id].discard(changed)
            if not self._listeners[job_id]:
                del self._listeners[job_id]
                self._newest.pop(job_id, None)

    def _after(self, job_id: str, seen: int) -> tuple[list[Event], bool]:
        """The next events, and whether no more will come: the state is read first, so that the last one is seen."""
        with self._sessions() as session:
            status = session.scalar(select(Job.status).where(Job.id == job_id))
            query = select(Event).where(Event.job_id == job_id, Event.sequence > seen).order_by(Event.sequence)
            events = list(session.scalars(query.limit(BATCH)))
        return events, status is None or JobStatus(status).is_final

    async def _look(self) -> None:
        """Wake the listeners of jobs that have changed."""
        while self._listeners:
            try:
                found = await run_in_threadpool(self._newest_of, list(self._listeners))
            except SQLAlchemyError as error:
                log.warning("live events wait for the database: %s", error)
                found = {}
            for job_id, newest in found.items():
                if self._newest.get(job_id) != newest:
                    self._newest[job_id] = newest
                    for listener in self._listeners.get(job_id, ()):
                        listener.set()
            await asyncio.sleep(LOOK_SECONDS)

    def _newest_of(self, job_ids: list[str]) -> dict[str, tuple[int, str]]:
        newest = select(func.max(Event.sequence)).where(Event.job_id == Job.id).scalar_subquery()
        with self._sessions() as session:
            rows = session.execute(select(Job.id, newest, Job.status).where(Job.id.in_(job_ids)))
            return {job_id: (sequence or 0, status) for job_id, sequence, status in rows}
