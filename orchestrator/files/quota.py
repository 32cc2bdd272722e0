"""How many bytes a project may store: its files, results included, and what is announced of uploads under way."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.db.models import File, Project, Upload
from orchestrator.errors import QuotaError


def require_room(session: Session, project_id: str, num_bytes: int) -> None:
    """``QuotaError`` where a file of ``num_bytes`` is too much. Holds the project's row until the transaction ends."""
    project = select(Project.max_storage_bytes).where(Project.id == project_id)
    limit = session.scalar(project)
    if limit is None:
        return
    # Two at once must not both take the last room; jobs, which only refer to the project, pass by this lock.
    session.execute(project.with_for_update(key_share=True))
    used = used_bytes(session, project_id)
    if used + num_bytes > limit:
        raise QuotaError(
            f"the project may store {limit:,} bytes and has {used:,}, so that {num_bytes:,} more find no room: delete "
            "files, or ask the project's admin for more"
        )


def used_bytes(session: Session, project_id: str) -> int:
    """Bytes that count towards the project's quota."""
    stored = select(func.coalesce(func.sum(File.bytes), 0)).where(File.project_id == project_id)
    announced = select(func.coalesce(func.sum(Upload.bytes), 0)).where(
        Upload.project_id == project_id, Upload.status == "pending", Upload.expires_at > datetime.now(UTC)
    )
    return int(session.scalar(stored) or 0) + int(session.scalar(announced) or 0)
