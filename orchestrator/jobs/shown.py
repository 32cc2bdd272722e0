"""Jobs and what belongs to them in the API's shapes. Stored values are trusted: what was valid is not checked again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ibllm_core.contract import layout
from ibllm_core.contract.api.jobs import (
    FineTuningJob,
    FineTuningJobCheckpoint,
    FineTuningJobEvent,
    JobError,
    ShownHyperparameters,
    ShownParent,
    ShownRun,
    ShownWait,
)
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import JobStatus, RunKind, RunState, TerminationReason, WaitCode
from ibllm_core.contract.submission import JobSubmission, Method, SupervisedHyperparameters, SupervisedMethod
from orchestrator.db.models import Attempt, Checkpoint, Event, Job, Run


def shown_job(job: Job, organization_id: str) -> FineTuningJob:
    """OpenAI's job object, and ours beside it."""
    request = JobRequest.model_validate(job.request) if job.runs else JobSubmission.model_validate(job.request)
    first = request.stages[0] if request.stages else None
    own = request if isinstance(request, JobSubmission) else None  # as it came, while files are checked
    openai = _openai_settings(job)
    trained = [run.outputs.get("trained_tokens", 0) for run in job.runs]
    return FineTuningJob(
        id=job.id,
        created_at=_seconds(job.created_at),
        finished_at=_seconds(job.finished_at) if job.finished_at else None,
        estimated_finish=_estimated_finish(job),
        status=JobStatus(job.status),
        model=request.model,
        fine_tuned_model=job.fine_tuned_model,
        organization_id=organization_id,
        project_id=job.project_id,
        training_file=first.training_file if first else str(request.training_file),
        validation_file=first.validation_file if first else own and own.validation_file,
        result_files=job.result_files,
        seed=request.seed or 0,
        trained_tokens=sum(trained) or None,
        hyperparameters=ShownHyperparameters(
            n_epochs=first.hyperparameters.n_epochs if first else openai.n_epochs,
            batch_size=openai.batch_size,
            learning_rate_multiplier=openai.learning_rate_multiplier,
            learning_rate=first.hyperparameters.learning_rate if first else None,
            row_tokens=first.hyperparameters.row_tokens if first else None,
            rows_per_step=first.hyperparameters.rows_per_step if first else None,
        ),
        method=Method(supervised=SupervisedMethod(hyperparameters=openai)),
        integrations=[],
        metadata=job.labels,
        error=JobError.model_validate(job.error) if job.error else None,
        priority=request.priority,
        budget=request.budget,
        gpu_hours=round(gpu_hours_of(job, datetime.now(UTC)), 4),
        pause_requested=job.pause_requested,
        cancel_requested=job.cancel_requested,
        parent=_shown_parent(job.parent),
        request=request,
        s3_prefix=f"jobs/{job.id}",
        runs=[_shown_run(job, run) for run in job.runs],
    )


def shown_event(event: Event) -> FineTuningJobEvent:
    """OpenAI's event object."""
    return FineTuningJobEvent.model_validate(
        {
            "id": event.id,
            "created_at": _seconds(event.created_at),
            "level": event.level,
            "message": event.message,
            "type": event.type,
            "data": event.data,
        }
    )


def shown_checkpoint(checkpoint: Checkpoint, kind: str) -> FineTuningJobCheckpoint:
    """OpenAI's checkpoint object; ``kind`` is its run's."""
    return FineTuningJobCheckpoint.model_validate(
        {
            "id": checkpoint.id,
            "created_at": _seconds(checkpoint.created_at),
            "fine_tuned_model_checkpoint": checkpoint.model,
            "fine_tuning_job_id": checkpoint.job_id,
            "metrics": checkpoint.metrics,
            "step_number": checkpoint.step,
            "stage": kind,
            "prefix": checkpoint.prefix,
        }
    )


def gpu_hours_of(job: Job, now: datetime) -> float:
    """GPU-hours that a job's attempts have held."""
    return sum(_gpu_seconds(attempt, now) for run in job.runs for attempt in run.attempts) / 3600


def _gpu_seconds(attempt: Attempt, now: datetime) -> float:
    return attempt.gpus * ((attempt.finished_at or now) - attempt.created_at).total_seconds()


def _openai_settings(job: Job) -> SupervisedHyperparameters:
    """What a client of OpenAI's sent, kept as it was sent."""
    return SupervisedHyperparameters.model_validate(job.openai_hyperparameters or {})


def _estimated_finish(job: Job) -> int | None:
    running = next((run for run in job.runs if run.state == RunState.RUNNING and run.progress), None)
    left = (running.progress or {}).get("seconds_left") if running else None
    return None if left is None else int(datetime.now(UTC).timestamp() + left)


def _shown_parent(parent: dict[str, Any] | None) -> ShownParent | None:
    if parent is None:
        return None
    return ShownParent(name=parent["name"], job_id=parent["job_id"], stage=parent["stage"], prefix=parent["prefix"])


def _shown_run(job: Job, run: Run) -> ShownRun:
    wait = None
    if run.state == RunState.PENDING and run.wait_code:
        wait = ShownWait(code=WaitCode(run.wait_code), message=run.wait_message or "")
    return ShownRun(
        id=run.id,
        kind=RunKind(run.kind),
        state=RunState(run.state),
        reason=TerminationReason(run.reason) if run.reason else None,
        message=run.message,
        waiting=wait,
        attempts=len(run.attempts),
        started_at=run.started_at.timestamp() if run.started_at else None,
        seconds=(run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None,
        progress=run.progress,
        ranks=run.attempts[-1].ranks if run.attempts else {},
        outputs=run.outputs,
        mlflow_run_id=run.mlflow_run_id,
        log=layout.attempt_log(job.id, run.kind, len(run.attempts)) if run.attempts else None,
    )


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
