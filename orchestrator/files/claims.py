"""Who checks which file. A claim is renewed while somebody works; one that is not is another checker's to take."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Update, func, or_, select, update
from sqlalchemy.orm import Session

from orchestrator.db.models import File, Project
from orchestrator.files.check import Task, Verdict

LEASE = timedelta(seconds=60)
PAUSE = timedelta(seconds=5)  # before another try where the store or the database was away


def claim(session: Session) -> Task | None:
    """Take the oldest file that nobody checks; None where there is none. All times are the database's."""
    is_free = or_(File.claimed_at.is_(None), File.claimed_at < func.now() - LEASE)
    oldest = (
        select(File.id)
        .where(File.status == "uploaded", is_free)
        .order_by(File.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    file_id = session.scalar(oldest)
    if file_id is None:
        session.rollback()
        return None
    claimed = {"claimed_at": func.now(), "check_tries": File.check_tries + 1}
    file = session.scalars(update(File).where(File.id == file_id).values(claimed).returning(File)).one()
    data_prefixes = session.get_one(Project, file.project_id).data_prefixes
    session.commit()
    assert file.claimed_at is not None
    return Task(
        file_id=file.id,
        key=file.key,
        filename=file.filename,
        has_sha256=file.sha256 is not None,
        count_with=file.count_with,
        data_prefixes=tuple(data_prefixes),
        claimed_at=file.claimed_at,
        tries=file.check_tries,
    )


def renew(session: Session, task: Task) -> datetime | None:
    """Say that the check goes on; returns the claim's new time, None where it was taken over or the file deleted."""
    renewed = _mine(task).values(claimed_at=func.now()).returning(File.claimed_at)
    claimed_at: datetime | None = session.scalar(renewed)
    session.commit()
    return claimed_at


def give_back(session: Session, task: Task, *, counts: bool, after: timedelta = timedelta()) -> None:
    """Let others check the file, ``after`` some time; ``counts`` where the file may be why this check did not end."""
    tries = File.check_tries if counts else File.check_tries - 1
    session.execute(_mine(task).values(claimed_at=func.now() - LEASE + after, check_tries=tries))
    session.commit()


def finish(session: Session, task: Task, verdict: Verdict) -> None:
    """Write what was found, unless the claim was lost."""
    report = verdict.report
    values = {
        "status": "error" if verdict.problem else "processed",
        "status_details": verdict.problem,
        "rows": report.rows if report else None,
        "check": report.model_dump(mode="json") if report else None,
        "claimed_at": None,
    }
    if verdict.sha256 is not None:
        values["sha256"] = verdict.sha256
    session.execute(_mine(task).values(values))
    session.commit()


def _mine(task: Task) -> Update:
    return update(File).where(File.id == task.file_id, File.status == "uploaded", File.claimed_at == task.claimed_at)
