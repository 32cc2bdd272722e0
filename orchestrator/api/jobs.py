"""``/v1/fine_tuning/jobs``: create, list, retrieve, cancel, pause, resume."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Page
from ibllm_core.contract.api.estimate import Estimate
from ibllm_core.contract.api.jobs import FineTuningJob, ResumeRequest
from ibllm_core.contract.submission import JobSubmission
from orchestrator.api.dependencies import JobsReader, JobsWriter, SessionOf, ShopOf
from orchestrator.api.pages import page
from orchestrator.db.models import Job
from orchestrator.errors import InvalidRequestError, NotFoundError
from orchestrator.jobs import control
from orchestrator.jobs.create import Sending, create
from orchestrator.jobs.estimate import estimate
from orchestrator.jobs.shown import shown_job
from orchestrator.tenants.access import Caller

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])
METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
MAX_METADATA = 16
DEFAULT_TIMEOUT = 600.0  # of OpenAI's clients
BACKOFF_SECONDS = 10.0  # the most that they wait between two tries
RetryCount = Annotated[int, Header(alias="x-stainless-retry-count", ge=0, le=100, include_in_schema=False)]
ReadTimeout = Annotated[str, Header(alias="x-stainless-read-timeout", max_length=32, include_in_schema=False)]


@router.post("", response_model=FineTuningJob | Estimate)
def submit(
    submission: JobSubmission,
    caller: JobsWriter,
    session: SessionOf,
    shop: ShopOf,
    dry_run: bool = False,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    retry_count: RetryCount = 0,
    read_timeout: ReadTimeout = "",
) -> FineTuningJob | Estimate:
    """Create a job; a repeated Idempotency-Key, or a client's own retry, finds the first one.

    ``dry_run`` checks everything and creates nothing: the answer estimates tokens, steps, memory, time and cost.
    """
    if dry_run:
        return estimate(session, shop, caller.project, submission)
    sending = Sending(
        idempotency_key=idempotency_key,
        retry_count=retry_count,
        timeout=timedelta(seconds=_seconds_of(read_timeout) + BACKOFF_SECONDS),
        arrived_at=datetime.now(UTC),
    )
    return shown_job(create(session, shop, caller, submission, sending), caller.organization_id)


@router.get("", response_model=Page[FineTuningJob])
def list_jobs(
    request: Request,
    caller: JobsReader,
    session: SessionOf,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    metadata: Annotated[
        Literal["null"] | None, Query(description="`null`: jobs without; or `metadata[key]=value`")
    ] = None,
) -> Page[FineTuningJob]:
    """Jobs, newest first; ``metadata[key]=value`` filters, several of them together."""
    query = select(Job).where(Job.project_id == caller.project)
    query = query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
    wanted = _wanted_metadata(request)
    if wanted:
        query = query.where(Job.labels.contains(wanted))
    if metadata:
        query = query.where(Job.labels == {})
    if after:
        cursor = find(session, caller, after, param="after")
        query = query.where(tuple_(Job.created_at, Job.id) < (cursor.created_at, cursor.id))
    return page(session.scalars(query).all(), limit, lambda job: shown_job(job, caller.organization_id))


@router.get("/{job_id}", response_model=FineTuningJob)
def retrieve(job_id: str, caller: JobsReader, session: SessionOf) -> FineTuningJob:
    """One job with its runs."""
    return shown_job(find(session, caller, job_id), caller.organization_id)


@router.post("/{job_id}/cancel", response_model=FineTuningJob)
def cancel(job_id: str, caller: JobsWriter, session: SessionOf) -> FineTuningJob:
    """Ask for the job's end; the scheduler stops what runs, which saves its step."""
    job = control.cancel(session, caller, find(session, caller, job_id, lock=True))
    return shown_job(job, caller.organization_id)


@router.post("/{job_id}/pause", response_model=FineTuningJob)
def pause(job_id: str, caller: JobsWriter, session: SessionOf) -> FineTuningJob:
    """Ask for a pause; what runs saves its step and lets its workers go."""
    job = control.pause(session, caller, find(session, caller, job_id, lock=True))
    return shown_job(job, caller.organization_id)


@router.post("/{job_id}/resume", response_model=FineTuningJob)
def resume(job_id: str, caller: JobsWriter, session: SessionOf, body: ResumeRequest | None = None) -> FineTuningJob:
    """Let a paused job go on from its newest checkpoint, with a larger budget where it has used its own."""
    job = control.resume(session, caller, find(session, caller, job_id, lock=True), body or ResumeRequest(budget=None))
    return shown_job(job, caller.organization_id)


def find(session: Session, caller: Caller, job_id: str, *, param: str | None = None, lock: bool = False) -> Job:
    """A job of the caller's project by its id, or ``NotFoundError``."""
    job = session.get(Job, job_id, with_for_update={"key_share": True} if lock else None)
    if job is None or job.project_id != caller.project:
        raise NotFoundError(f"there is no job {job_id!r}: GET /v1/fine_tuning/jobs lists them", param=param)
    return job


def _wanted_metadata(request: Request) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        found = METADATA.fullmatch(name)
        if found:
            wanted[found[1]] = value
        elif name.startswith("metadata["):
            raise InvalidRequestError(f"{name} is no filter: write metadata[key]=value", param="metadata")
    if len(wanted) > MAX_METADATA or any(len(value) > 512 for value in wanted.values()):
        raise InvalidRequestError(f"at most {MAX_METADATA} pairs of at most 512 characters", param="metadata")
    return wanted


def _seconds_of(read_timeout: str) -> float:
    """What a client says of its timeout; a word that is no number, such as ``NOT_GIVEN``, is its default."""
    try:
        seconds = float(read_timeout)
    except ValueError:
        return DEFAULT_TIMEOUT
    return min(max(seconds, 0.0), 86_400.0) if math.isfinite(seconds) else DEFAULT_TIMEOUT
