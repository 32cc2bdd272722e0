"""A job comes into being: once, whole, in one transaction, however often a client sends it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import JobStatus, RunKind, RunState
from ibllm_core.contract.submission import JobSubmission
from orchestrator.db.events import add_event
from orchestrator.db.models import Job, Run
from orchestrator.db.statements import insert_rows, lock, table_of
from orchestrator.errors import ConflictError, QuotaError
from orchestrator.ids import new_id
from orchestrator.jobs.prepare import Prepared, Shop, prepare
from orchestrator.tenants import audit
from orchestrator.tenants.access import Caller
from orchestrator.tenants.usage import QUEUED

# What a row has that was just made; the answer is shown from it, and nothing is read again.
DEFAULTS: dict[str, Any] = {"result_files": [], "cancel_requested": False, "pause_requested": False}
RUN_DEFAULTS: dict[str, Any] = {"state": RunState.PENDING, "outputs": {}, "attempts": []}
_INSERT = insert(table_of(Job)).returning(table_of(Job).c.created_at)


@dataclass(frozen=True, kw_only=True)
class Sending:
    """What a request says of itself: its key if it has one, which try it is, how long it waits, when it arrived."""

    idempotency_key: str | None
    retry_count: int
    timeout: timedelta
    arrived_at: datetime

    @property
    def first_try_after(self) -> datetime:
        """Earlier than this the first try of the same request was not sent."""
        return self.arrived_at - self.retry_count * self.timeout


def create(session: Session, shop: Shop, caller: Caller, submission: JobSubmission, sending: Sending) -> Job:
    """The job of a request: a new one, or the one that an earlier try of the same request made.

    Raises what ``prepare`` raises, ``ConflictError`` for an idempotency key that came with another request, and
    ``QuotaError``. Nothing is written then.
    """
    request_hash = _hash_of(caller, submission)
    known = _known(session, caller, sending, request_hash)
    if known is not None:
        return known
    prepared = prepare(session, shop, caller.project, submission)
    _check_quota(session, caller)
    if prepared.parent and layout.is_checkpoint(prepared.parent.prefix):
        shop.store.put(layout.pin(prepared.parent.prefix), b"")  # its run may still be training, and tidying up
    values = {
        "id": new_id("ftjob"),
        "project_id": caller.project,
        "created_by": caller.key_id,
        "request_hash": request_hash,
        "retry_count": sending.retry_count,
        "idempotency_key": sending.idempotency_key,
        "metadata": submission.metadata,
        "openai_hyperparameters": submission.supervised.model_dump(mode="json"),
        **contents_of(submission, prepared),
    }
    created_at = session.execute(_INSERT, values).scalar_one()
    runs = begin(session, values["id"], prepared)
    audit.record(session, caller, "fine_tuning.job.created", values["id"])
    session.commit()
    made = {"labels" if name == "metadata" else name: value for name, value in values.items()}
    return Job(**made, **DEFAULTS, created_at=created_at, runs=[Run(**run, **RUN_DEFAULTS) for run in runs])


def contents_of(submission: JobSubmission, prepared: Prepared) -> dict[str, Any]:
    """The columns of a job that follow from what was prepared."""
    said = prepared.request or submission
    return {
        "status": JobStatus.QUEUED if prepared.request else JobStatus.VALIDATING_FILES,
        "request": said.model_dump(mode="json", exclude_unset=prepared.request is None),
        "parent": prepared.parent.model_dump(mode="json") if prepared.parent else None,
    }


def begin(session: Session, job_id: str, prepared: Prepared) -> list[dict[str, Any]]:
    """Give a job that is in the database its runs, which are returned, or tell for which files it waits."""
    runs: list[dict[str, Any]] = []
    if prepared.request is None:
        message = f"the job was created and waits for the check of {', '.join(prepared.waits_for)}"
    else:
        kinds = kinds_of(prepared.request)
        message = f"the job is queued with the runs {', '.join(kinds)}"
        runs = [
            {"id": f"{job_id}-{kind}", "job_id": job_id, "position": position, "kind": kind, "version": 1}
            for position, kind in enumerate(kinds)
        ]
        insert_rows(session, Run, runs)
    add_event(session, job_id, message, is_first=True)
    return runs


def kinds_of(request: JobRequest) -> list[RunKind]:
    """The runs of a job, in their order: data, its stages, and a measurement where there is held-out data."""
    stages = [RunKind(stage.stage) for stage in request.stages]
    measured = [RunKind.EVALUATE] if any(stage.validation_file for stage in request.stages) else []
    return [RunKind.COMPILE, *stages, *measured]


def _hash_of(caller: Caller, submission: JobSubmission) -> str:
    return hashlib.sha256(f"{caller.key_id} {submission.model_dump_json()}".encode()).hexdigest()


def _known(session: Session, caller: Caller, sending: Sending, request_hash: str) -> Job | None:
    """The job that this very request made before, or None.

    The lock makes tries of one request wait for each other: without it a try that its client gave up on, and the next
    one, could both find nothing.
    """
    name = f"{caller.project} {sending.idempotency_key}" if sending.idempotency_key else request_hash
    lock(session, name)
    if sending.idempotency_key:
        query = select(Job).where(Job.project_id == caller.project, Job.idempotency_key == sending.idempotency_key)
        known = session.scalar(query)
        return known and _same(known, request_hash)
    # One that has failed meanwhile is what the user submits again.
    is_ours = (Job.project_id == caller.project, Job.request_hash == request_hash)
    query = select(Job).where(*is_ours, Job.status.not_in((JobStatus.FAILED, JobStatus.CANCELLED)))
    if sending.retry_count > 0:
        query = query.where(Job.created_at > sending.first_try_after)
    else:  # this try was held up, and a later one overtook it
        query = query.where(Job.created_at > sending.arrived_at, Job.retry_count > 0)
    return session.scalar(query.order_by(Job.created_at.desc()).limit(1))


def _same(job: Job, request_hash: str) -> Job:
    if job.request_hash != request_hash:
        raise ConflictError(
            f"this Idempotency-Key made job {job.id} from another request: send a new key with a new request",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
    return job


def _check_quota(session: Session, caller: Caller) -> None:
    limit = caller.max_queued_jobs
    if limit is None:
        return
    # Creates of one project wait for each other here, so that two of them do not both take the last place.
    lock(session, f"queue {caller.project}")
    waiting = select(Job.id).where(Job.project_id == caller.project, Job.status.in_(QUEUED)).limit(limit).subquery()
    if (session.scalar(select(func.count()).select_from(waiting)) or 0) >= limit:
        raise QuotaError(
            f"this project has {limit} jobs in the queue, as many as it may: cancel one, wait for one to start, or ask "
            "the operator for more"
        )
