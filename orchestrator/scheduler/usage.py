"""What projects and jobs have used, against what they may."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from orchestrator.db.events import add_event
from orchestrator.db.models import Job, Project
from orchestrator.jobs.shown import gpu_hours_of
from orchestrator.scheduler.policy import Quota
from orchestrator.tenants.usage import gpu_hours_of_month


def quotas_of(session: Session, jobs: Sequence[Job], now: datetime) -> dict[str, Quota]:
    """The quotas of the projects that have one, with what they have used of this month."""
    limited = select(Project).where(
        Project.id.in_({job.project_id for job in jobs}),
        or_(Project.max_gpus.is_not(None), Project.gpu_hours_per_month.is_not(None)),
    )
    return {
        project.id: Quota(
            max_gpus=project.max_gpus,
            gpu_hours_per_month=project.gpu_hours_per_month,
            gpu_hours_used=0.0 if project.gpu_hours_per_month is None else gpu_hours_of_month(session, project.id, now),
        )
        for project in session.scalars(limited)
    }


def pause_spent(session: Session, jobs: Sequence[Job], now: datetime) -> None:
    """Ask for a pause of jobs that have used their budget; nothing of theirs is lost."""
    for job in jobs:
        budget = job.request.get("budget")
        if budget and not job.pause_requested and (used := gpu_hours_of(job, now)) >= budget["gpu_hours"]:
            job.pause_requested = True
            message = (
                f"the job has used {used:.2f} GPU-hours, its budget is {budget['gpu_hours']:g}: it is being paused; "
                "resume it with a larger one"
            )
            add_event(session, job.id, message, level="warn", data={"gpu_hours": used})
