"""Cancel, pause, resume: what a user asks of a job. The scheduler sees to what runs."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from ibllm_core.contract.api.jobs import ResumeRequest
from ibllm_core.contract.states import JobStatus
from orchestrator.db.events import add_event
from orchestrator.db.models import Job
from orchestrator.errors import ConflictError
from orchestrator.jobs.shown import gpu_hours_of
from orchestrator.tenants import audit
from orchestrator.tenants.access import Caller


def cancel(session: Session, caller: Caller, job: Job) -> Job:
    """Ask for the job's end; ``ConflictError`` for one that has ended. Asking again changes nothing."""
    _require_open(job, "cancelled")
    if job.status == JobStatus.PAUSED:
        job.status = JobStatus.QUEUED  # the scheduler ends it, as it ends all others
    if not job.cancel_requested:
        job.cancel_requested = True
        _tell(session, caller, job, "cancelled", "the job is being cancelled")
    session.commit()
    return job


def pause(session: Session, caller: Caller, job: Job) -> Job:
    """Ask for a pause; ``ConflictError`` for a job that has ended or is being cancelled."""
    _require_open(job, "paused")
    if job.cancel_requested:
        raise ConflictError(f"job {job.id} is being cancelled and cannot be paused")
    if not job.pause_requested:
        job.pause_requested = True
        _tell(session, caller, job, "paused", "the job is being paused")
    session.commit()
    return job


def resume(session: Session, caller: Caller, job: Job, body: ResumeRequest) -> Job:
    """Let a paused job go on; ``ConflictError`` for one that is not paused, or whose budget is used up."""
    _require_open(job, "resumed")
    if not job.pause_requested:
        raise ConflictError(f"job {job.id} is {job.status} and not paused: there is nothing to resume")
    if body.budget is not None:
        job.request = {**job.request, "budget": body.budget.model_dump()}
    budget = job.request.get("budget")
    used = gpu_hours_of(job, datetime.now(UTC))
    if budget and used >= budget["gpu_hours"]:
        raise ConflictError(
            f"job {job.id} has used {used:.2f} of its {budget['gpu_hours']:g} GPU-hours: resume it with a larger "
            '"budget": {"gpu_hours": …}',
            param="budget",
            code="budget_exceeded",
        )
    job.pause_requested = False
    if job.status == JobStatus.PAUSED:
        job.status = JobStatus.QUEUED
    _tell(session, caller, job, "resumed", "the job goes on")
    session.commit()
    return job


def _require_open(job: Job, deed: str) -> None:
    if JobStatus(job.status).is_final:
        raise ConflictError(f"job {job.id} is {job.status} and cannot be {deed}")


def _tell(session: Session, caller: Caller, job: Job, deed: str, message: str) -> None:
    add_event(session, job.id, message)
    audit.record(session, caller, f"fine_tuning.job.{deed}", job.id)
