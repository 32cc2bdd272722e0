"""Jobs whose files were still being checked when they came: they join the queue, or fail, when the checks are done."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from sqlalchemy import select, tuple_
from sqlalchemy.exc import OperationalError
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
log = logging.getLogger(__name__)
Place = tuple[datetime, str]


def settle_validated(session: Session, shop: Shop, after: Place | None) -> Place | None:
    """Move some of the jobs that wait for their files; returns where the next pass begins, None for the beginning.

    All get their turn: many that wait for one large file do not hold up the others. One that cannot be looked at now is
    logged and looked at again.
    """
    query = select(Job.created_at, Job.id).where(Job.status == JobStatus.VALIDATING_FILES)
    if after is not None:
        query = query.where(tuple_(Job.created_at, Job.id) > after)
    places = session.execute(query.order_by(Job.created_at, Job.id).limit(AT_ONCE)).all()
    session.commit()
    for _, job_id in places:
        try:
            job = session.get(Job, job_id, with_for_update={"key_share": True}, populate_existing=True)
            if job is not None and job.status == JobStatus.VALIDATING_FILES:
                _settle(session, shop, job)
            session.commit()
        except OperationalError:
            raise  # the database went away, for all jobs
        except Exception:
            log.exception("job %s cannot be validated now; the other jobs go on", job_id)
            session.rollback()
    return (places[-1][0], places[-1][1]) if len(places) == AT_ONCE else None


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
