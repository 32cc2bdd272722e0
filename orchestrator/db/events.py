"""Lines of a job's story."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from orchestrator.db.models import Event
from orchestrator.db.statements import lock, table_of
from orchestrator.ids import new_id

_INSERT = insert(table_of(Event)).on_conflict_do_nothing(index_elements=["id"])


def add_event(
    session: Session,
    job_id: str,
    message: str,
    *,
    level: str = "info",
    type: str = "message",
    data: dict[str, Any] | None = None,
    event_id: str | None = None,
    is_first: bool = False,
) -> None:
    """Add a line in the caller's transaction, so that a change and its story are one; an ``event_id`` is told once.

    Writers of one job's events wait for each other: a reader who has seen an event has seen all before it. The first
    one, of a job that nobody knows yet, needs no waiting.
    """
    if not is_first:
        lock(session, f"events {job_id}")
    row = {"id": event_id or new_id("ftevent"), "job_id": job_id, "level": level, "type": type, "message": message}
    session.execute(_INSERT, {**row, "data": data or {}})
