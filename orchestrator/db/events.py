"""Lines of a job's story."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from orchestrator.db.models import Event
from orchestrator.ids import new_id


def add_event(
    session: Session,
    job_id: str,
    message: str,
    *,
    level: str = "info",
    data: dict[str, Any] | None = None,
    event_id: str | None = None,
) -> None:
    """Add a line in the caller's transaction, so that a change and its story are one."""
    session.add(Event(id=event_id or new_id("ftevent"), job_id=job_id, level=level, message=message, data=data or {}))
