"""Jobs whose files were still being checked when they came: they join the queue, or fail, when the checks are done."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ibllm_core.contract.api.webhooks import EventType
from ibllm_core.contract.states import JobStatus
from ibllm_core.contract.submission import JobSubmission
from orchestrator.db.events import add_event
from orchestrator.db.models import Job
from orchestrator.errors import ServiceError
from orchestrator.jobs.create import begin, contents_of
from orchestrator.jobs.prepare import Shop, prepare
from orchestrator.outbox.webhooks import announce
from orchestrator.scheduler.settling import fail

AT_ONCE = 100


def settle_validated(session: Session, shop: Shop) -> None:
    """Move each job that waits for its files, if it can move."""
    query = select(Job.id).where(Job.status == JobStatus.VALIDATING_FILES).order_by(Job.created_at).limit(AT_ONCE)
    for job_id in session.scalars(query).all():
        job = session.get(Job, job_id, with_for_update=True)
        if job is not None and job.status == JobStatus.VALIDATING_FILES:
            _settle(session, shop, job)
        session.commit()


def _settle(session: Session, shop: Shop, job: Job) -> None:
    now = datetime.now(UTC)
    if job.cancel_requested:
        job.status, job.finished_at = JobStatus.CANCELLED, now
        add_event(session, job.id, "the job was cancelled")
        announce(session, job, EventType.CANCELLED)
        return
    submission = JobSubmission.model_validate(job.request)
    try:
        prepared = prepare(session, shop, job.project_id, submission)
    except ServiceError as error:
        fail(session, job, now, code=error.code, message=error.message, param=error.param)
        return
    if prepared.request is not None:
        for name, value in contents_of(submission, prepared).items():
            setattr(job, name, value)
        session.flush()
        begin(session, job.id, prepared)
