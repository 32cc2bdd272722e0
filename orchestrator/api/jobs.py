"""``/v1/fine_tuning/jobs``: create, list, retrieve, cancel, events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from sqlalchemy import select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import JobStatus, RunKind, RunState
from orchestrator.api.dependencies import SessionOf, SettingsOf, StoreOf, require_key
from orchestrator.api.job_check import check_request
from orchestrator.api.pages import page
from orchestrator.db.events import add_event
from orchestrator.db.models import Event, Job, Run
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ids import new_id

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"], dependencies=[Depends(require_key)])


@router.post("")
def create(
    request: JobRequest,
    session: SessionOf,
    store: StoreOf,
    settings: SettingsOf,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> dict[str, Any]:
    """Create a job with its runs and its first event in one transaction; a repeated key finds the first job."""
    if idempotency_key:
        known = session.scalar(select(Job).where(Job.idempotency_key == idempotency_key))
        if known:
            return shown(known)
    check_request(request, session, store, settings)
    job = Job(id=new_id("ftjob"), request=request.model_dump(mode="json"), idempotency_key=idempotency_key)
    kinds = [kind for kind in RunKind if kind != RunKind.EVALUATE or any(s.validation_file for s in request.stages)]
    job.runs = [
        Run(id=f"{job.id}-{kind}", position=position, kind=kind, outputs={}) for position, kind in enumerate(kinds)
    ]
    session.add(job)
    try:
        session.flush()
    except IntegrityError:  # the same key arrived twice at once; the other one won
        session.rollback()
        return shown(session.scalars(select(Job).where(Job.idempotency_key == idempotency_key)).one())
    add_event(session, job.id, f"the job was created with the runs {', '.join(kinds)}")
    session.commit()
    session.refresh(job)
    return shown(job)


@router.get("")
def list_jobs(
    session: SessionOf, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """Jobs, newest first."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
    if after:
        cursor = find(session, after)
        query = query.where(tuple_(Job.created_at, Job.id) < (cursor.created_at, cursor.id))
    return page(session.scalars(query).all(), limit, shown)


@router.get("/{job_id}")
def retrieve(job_id: str, session: SessionOf) -> dict[str, Any]:
    """One job with its runs."""
    return shown(find(session, job_id))


@router.post("/{job_id}/cancel")
def cancel(job_id: str, session: SessionOf) -> dict[str, Any]:
    """Ask for the job's end; the scheduler stops what runs."""
    job = find(session, job_id)
    if JobStatus(job.status).is_final:
        raise ConflictError(f"job {job_id} is {job.status} and cannot be cancelled")
    job.cancel_requested = True
    session.commit()
    return shown(job)


@router.get("/{job_id}/events")
def events(
    job_id: str, session: SessionOf, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """A job's events, newest first."""
    find(session, job_id)
    query = select(Event).where(Event.job_id == job_id).order_by(Event.sequence.desc()).limit(limit + 1)
    if after:
        cursor = session.get(Event, after)
        if cursor is None:
            raise NotFoundError(f"there is no event {after!r}", param="after")
        query = query.where(Event.sequence < cursor.sequence)
    return page(session.scalars(query).all(), limit, _shown_event)


def find(session: Session, job_id: str) -> Job:
    """A job by its id, or ``NotFoundError``."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"there is no job {job_id!r}: GET /v1/fine_tuning/jobs lists them")
    return job


def shown(job: Job) -> dict[str, Any]:
    """OpenAI's job object; ``runs`` and ``s3_prefix`` are ours."""
    request = JobRequest.model_validate(job.request)
    trained = [run.outputs.get("trained_tokens", 0) for run in job.runs]
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at.timestamp()),
        "finished_at": int(job.finished_at.timestamp()) if job.finished_at else None,
        "status": job.status,
        "model": request.model,
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": "default",
        "training_file": request.stages[0].training_file,
        "validation_file": request.stages[0].validation_file,
        "result_files": job.result_files,
        "seed": request.seed,
        "trained_tokens": sum(trained) or None,
        "hyperparameters": request.stages[0].hyperparameters.model_dump(),
        "metadata": request.metadata,
        "error": job.error,
        "request": job.request,
        "s3_prefix": f"jobs/{job.id}",
        "runs": [_shown_run(job, run) for run in job.runs],
    }


def _shown_run(job: Job, run: Run) -> dict[str, Any]:
    waits = run.state == RunState.PENDING and run.wait_code
    return {
        "id": run.id,
        "kind": run.kind,
        "state": run.state,
        "reason": run.reason,
        "message": run.message,
        "waiting": {"code": run.wait_code, "message": run.wait_message} if waits else None,
        "attempts": len(run.attempts),
        "started_at": run.started_at.timestamp() if run.started_at else None,
        "seconds": (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None,
        "progress": run.progress,
        "ranks": run.attempts[-1].ranks if run.attempts else {},
        "outputs": run.outputs,
        "mlflow_run_id": run.mlflow_run_id,
        "log": layout.attempt_log(job.id, run.kind, len(run.attempts)) if run.attempts else None,
    }


def _shown_event(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": int(event.created_at.timestamp()),
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }
