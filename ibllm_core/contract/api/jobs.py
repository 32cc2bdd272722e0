"""Fine-tuning jobs as the API shows them: OpenAI's objects, with ours beside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import Budget, JobRequest, Priority, TrainingStage
from ibllm_core.contract.states import JobStatus, RunKind, RunState, TerminationReason, WaitCode
from ibllm_core.contract.submission import Auto, Integration, JobSubmission, Method


class JobError(Contract):
    """Why a job failed; ``param`` is the field of the request that was wrong, where one was."""

    code: str
    message: str
    param: str | None


class ShownHyperparameters(Contract):
    """OpenAI's three of the first stage, and what they came to; every setting of every stage is in ``request``."""

    n_epochs: int | Auto
    batch_size: int | Auto
    learning_rate_multiplier: float | Auto
    learning_rate: float | None = None
    row_tokens: int | None = None
    rows_per_step: int | None = None


class ShownWait(Contract):
    """Why a run is not running yet."""

    code: WaitCode
    message: str


class ShownRun(Contract):
    """A step of a job. ``seconds`` is from its first start to its end, ``log`` the key of its newest attempt's log."""

    id: str
    kind: RunKind
    state: RunState
    reason: TerminationReason | None
    message: str | None
    waiting: ShownWait | None
    attempts: int
    started_at: float | None
    seconds: float | None
    progress: dict[str, Any] | None
    ranks: dict[str, Any]
    outputs: dict[str, Any]
    mlflow_run_id: str | None
    log: str | None


class ShownParent(Contract):
    """What the first stage starts from."""

    name: str
    job_id: str
    stage: TrainingStage
    prefix: str


class FineTuningJob(Contract):
    """A job. ``model`` is the base; ``request`` is the job with all that was inferred, once its files are checked."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None = Field(description="from the run's own estimate, plus nothing for runs to come")
    status: JobStatus
    model: str
    fine_tuned_model: str | None
    organization_id: str
    project_id: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    seed: int
    trained_tokens: int | None
    hyperparameters: ShownHyperparameters
    method: Method | None
    integrations: list[Integration]
    metadata: dict[str, str]
    error: JobError | None
    priority: Priority
    budget: Budget | None
    gpu_hours: float = Field(description="held so far, by all attempts together")
    pause_requested: bool
    cancel_requested: bool
    parent: ShownParent | None
    request: JobRequest | JobSubmission
    s3_prefix: str
    runs: list[ShownRun]


class ResumeRequest(Contract):
    """What may change when a paused job goes on."""

    budget: Budget | None = Field(None, description="a job that paused for its budget needs a larger one")


class FineTuningJobEvent(Contract):
    """A line of a job's story; a ``metrics`` event has numbers in ``data``, the gates' among them."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class FineTuningJobCheckpoint(Contract):
    """A checkpoint that is ready to use: as a model, or for a job to start from."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float] = Field(description="OpenAI's names where they were measured, and the gates'")
    step_number: int
    stage: TrainingStage
    prefix: str


class CheckpointPermission(Contract):
    """That a project may use a model or a checkpoint of another one."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str


class PermissionRequest(Contract):
    """Projects of the same organisation to give a model or a checkpoint to."""

    project_ids: list[Annotated[str, Field(max_length=64)]] = Field(min_length=1, max_length=100)


class ShownModel(Contract):
    """A model. Base models have no job; ``owned_by`` is the organisation of a fine-tuned one."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    base: str | None = None
    encoder: str | None = None
    stage: TrainingStage | None = None
    job_id: str | None = None
    uri: str | None = None
    sha256: str | None = None
    mlflow_run_id: str | None = None


class ModelList(Contract):
    """OpenAI lists all models at once."""

    object: Literal["list"] = "list"
    data: list[ShownModel]
    has_more: Literal[False] = False


class ModelFile(Contract):
    """A file of an adapter."""

    name: str
    bytes: int
    sha256: str


class ModelFiles(Contract):
    """All files of an adapter."""

    object: Literal["list"] = "list"
    data: list[ModelFile]
    has_more: Literal[False] = False


class AttemptLog(Contract):
    """One attempt's log, to be read at ``/logs/{run}?attempt=``."""

    id: str
    run: RunKind
    attempt: int
    is_live: bool
