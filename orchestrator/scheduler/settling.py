"""The status that a job's runs add up to, and what its end leaves: a model, an event, words to webhooks."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ibllm_core.contract.api.webhooks import EventType
from ibllm_core.contract.states import JobStatus, RunState, TerminationReason
from orchestrator.db.events import add_event
from orchestrator.db.models import Job, Model, Project
from orchestrator.jobs.naming import model_name
from orchestrator.outbox.webhooks import announce
from orchestrator.registry import tracker
from orchestrator.scheduler.queue import ACTIVE

# Who sees a job's end finds it in MLflow, too; where MLflow is away for longer, it gets to know later.
TRACKING_PATIENCE = timedelta(seconds=20)


def settle(session: Session, job: Job, now: datetime) -> None:
    """Give the job its status; the caller commits it with all that follows from it."""
    is_active = any(run.state in ACTIVE for run in job.runs)
    if is_active and job.status == JobStatus.QUEUED:
        job.status = JobStatus.RUNNING
    if all(run.state == RunState.DONE for run in job.runs):
        waited = now - max(run.finished_at for run in job.runs if run.finished_at)
        if tracker.is_complete(job) or waited >= TRACKING_PATIENCE:
            _finish(session, job, now)
    elif job.pause_requested and not is_active and not job.cancel_requested:
        job.status = JobStatus.PAUSED
        add_event(session, job.id, "the job is paused; resume it, and it goes on from its last step")
        announce(session, job, EventType.PAUSED)


def _finish(session: Session, job: Job, now: datetime) -> None:
    failed = next((run for run in job.runs if run.reason != TerminationReason.SUCCEEDED), None)
    if failed is None:
        job.status = JobStatus.SUCCEEDED
        job.fine_tuned_model = _make_model(session, job, now)
        message = f"the job succeeded; its model is {job.fine_tuned_model}"
    elif failed.reason == TerminationReason.CANCELLED:
        job.status = JobStatus.CANCELLED
        message = "the job was cancelled"
    else:
        message = f"{failed.kind} failed ({failed.reason}): {failed.message}"
        fail(session, job, now, code=str(failed.reason), message=message, param=None)
        return
    job.finished_at = now
    add_event(session, job.id, message)
    announce(session, job, EventType(f"fine_tuning.job.{job.status}"))


def fail(session: Session, job: Job, now: datetime, *, code: str, message: str, param: str | None) -> None:
    """End a job with an error that its user can read."""
    job.status, job.finished_at = JobStatus.FAILED, now
    job.error = {"code": code, "message": message, "param": param}
    add_event(session, job.id, message, level="error")
    announce(session, job, EventType.FAILED)


def _make_model(session: Session, job: Job, now: datetime) -> str:
    last = job.stages[-1]
    organization_id = session.get_one(Project, job.project_id).organization_id
    model = Model(
        id=model_name(job, organization_id),
        project_id=job.project_id,
        job_id=job.id,
        created_at=now,
        base=job.request["model"],
        encoder=job.request["encoder"],
        stage=last.kind,
        prefix=last.outputs["adapter"],
        sha256=last.outputs["adapter_sha256"],
    )
    session.add(model)
    return model.id
