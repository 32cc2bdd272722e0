"""What a project uses now, and has used in this month; quotas are held against it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from ibllm_core.contract.states import JobStatus
from orchestrator.db.models import Attempt, File, Job, Upload, UploadPart

QUEUED = (JobStatus.VALIDATING_FILES, JobStatus.QUEUED)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """``gpu_hours`` are those of the month that began at ``month_start``, UTC; ``gpus`` are held at this moment."""

    month_start: datetime
    gpu_hours: float
    gpus: float
    queued_jobs: int
    storage_bytes: int


def usage_of(session: Session, project_id: str, now: datetime | None = None) -> Usage:
    """Count; a running attempt has used what it held until ``now``, which is this moment unless it is told."""
    now = now or datetime.now(UTC)
    held = select(func.sum(Attempt.gpus)).where(Attempt.project_id == project_id, Attempt.finished_at.is_(None))
    queued = session.scalar(select(func.count(Job.id)).where(Job.project_id == project_id, Job.status.in_(QUEUED)))
    return Usage(
        month_start=month_start(now),
        gpu_hours=gpu_hours_of_month(session, project_id, now),
        gpus=float(session.scalar(held) or 0),
        queued_jobs=queued or 0,
        storage_bytes=storage_of(session, project_id),
    )


def gpu_hours_of_month(session: Session, project_id: str, now: datetime) -> float:
    """GPU-hours that a project's attempts have held since the month began, in UTC."""
    start = month_start(now)
    in_month = (Attempt.project_id == project_id, func.coalesce(Attempt.finished_at, now) > start)
    return float(session.scalar(select(func.sum(_gpu_hours(start, now))).where(*in_month)) or 0)


def storage_of(session: Session, project_id: str) -> int:
    """Bytes of a project's files, and of the parts of uploads that are under way."""
    files = session.scalar(select(func.sum(File.bytes)).where(File.project_id == project_id))
    parts = session.scalar(
        select(func.sum(UploadPart.bytes))
        .join(Upload, Upload.id == UploadPart.upload_id)
        .where(Upload.project_id == project_id, Upload.status == "pending")
    )
    return int(files or 0) + int(parts or 0)


def month_start(now: datetime) -> datetime:
    """The first moment of the calendar month in UTC."""
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _gpu_hours(start: datetime, now: datetime) -> ColumnElement[float]:
    end = func.least(func.coalesce(Attempt.finished_at, now), now)
    seconds = func.extract("epoch", end - func.greatest(Attempt.created_at, start))
    return Attempt.gpus * func.greatest(seconds, 0) / 3600
