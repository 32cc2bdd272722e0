"""What a user submits: the body of ``POST /v1/fine_tuning/jobs``, and the resources it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.api.common import Metadata
from ibllm_core.contract.base import Contract

TrainingStage = Literal["stage1", "stage2"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
ZeroStage = Literal[0, 1, 2, 3]
Offload = Literal["none", "optimizer", "parameters"]
Priority = Literal["low", "normal", "high"]
MAX_SEED = 2**31 - 1
MANY = 10**9  # no run has more steps, samples or seconds; products of such numbers still fit what stores them
MAX_RATE = 1e30  # beyond all sense, and within float32: a run that diverges says so itself
MAX_LOCATION = 4096
IMAGEBIND = "imagebind"  # the encoder whose weights everybody has to bring


class Resources(Contract):
    """One gang: all of its workers start together or none does."""

    workers: int = Field(2, ge=1, le=1024, description="ranks of a training run")
    min_workers: int | None = Field(
        None, ge=1, le=1024, description="elastic: go on with as few while workers are lost; null: always all"
    )
    cpus_per_worker: float = Field(1.0, gt=0, le=1024)
    gpus_per_worker: float = Field(0.0, ge=0, le=8)
    zero_stage: Literal["auto", 0, 1, 2, 3] = Field("auto", description="auto: the lowest that fits the memory")
    offload: Literal["auto", "none", "optimizer", "parameters"] = Field(
        "auto", description="what lies in the host's memory; auto: nothing, unless no ZeRO stage fits without"
    )
    precision: Precision = Field("auto", description="auto: bf16 where the device has it, else fp32")
    micro_batch_tokens: int | None = Field(
        None, ge=16, le=1 << 30, description="tokens of one forward pass of a worker; null: what its memory allows"
    )
    activation_checkpointing: bool = Field(False, description="half again the time for a fraction of the memory")
    compile: bool = Field(False, description="torch.compile each layer; pays on GPUs in long runs")

    @model_validator(mode="after")
    def _gang_has_bounds(self) -> Resources:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers is {self.min_workers}, but must be at most workers, {self.workers}")
        return self


class Hyperparameters(Contract):
    """Training settings of one stage; defaults suit small runs."""

    n_epochs: int = Field(1, ge=1, le=1000)
    max_steps: int | None = Field(None, ge=1, le=MANY, description="end after so many steps, wherever the epoch stands")
    learning_rate: float = Field(4e-4, gt=0, le=MAX_RATE, description="peak rate of everything but the gates")
    gate_learning_rate: float = Field(1e-2, gt=0, le=MAX_RATE, description="peak rate of the gates, which never decay")
    layer_decay: float = Field(1.0, gt=0, le=1, description="factor of the rate from a layer to the one before it")
    final_rate_share: float = Field(0.0, ge=0, le=1, description="share of the peak rate that the cosine ends at")
    weight_decay: float = Field(0.02, ge=0, le=MAX_RATE, description="of matrices; gates, norms and biases never decay")
    warmup_share: float = Field(0.06, ge=0, lt=1, description="share of the steps with a rising rate")
    warmup_steps: int | None = Field(None, ge=0, le=MANY, description="in steps; instead of warmup_share")
    warmup_epochs: float | None = Field(None, ge=0, le=1000, description="in epochs; instead of warmup_share")
    gradient_clip: float = Field(1.0, gt=0, le=MANY)
    row_tokens: int = Field(256, ge=16, le=65536, description="tokens of a packed row")
    rows_per_step: int = Field(2, ge=1, le=1 << 20, description="packed rows of one optimizer step, over all workers")

    @model_validator(mode="after")
    def _one_warmup(self) -> Hyperparameters:
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise ValueError("warmup_steps and warmup_epochs are both given: leave one of them out")
        return self


class CheckpointPolicy(Contract):
    """When a training run saves, what it keeps, and which is its result; the newest checkpoint is always kept."""

    every_seconds: float = Field(
        60.0, gt=0, le=MANY, description="what a crash may cost; a save costs the training little"
    )
    every_steps: int | None = Field(None, ge=1, le=MANY, description="instead of every_seconds")
    keep_last: int = Field(2, ge=1, le=1000)
    keep_best: int = Field(1, ge=0, le=1000, description="those of the lowest validation loss, where it is measured")
    keep_every: int | None = Field(None, ge=1, le=MANY, description="those of steps that are multiples of this")
    result: Literal["last", "best"] = Field(
        "last",
        description="which one becomes the stage's result; best: the lowest validation loss, needs a validation file",
    )


class EvaluationSettings(Contract):
    """What is measured on validation data while training."""

    every_steps: int | None = Field(None, ge=1, le=MANY, description="null: at the end of each epoch")
    max_samples: int = Field(256, ge=1, le=MANY, description="of the validation data, from its start")


class RetryPolicy(Contract):
    """What happens after an attempt that failed of the infrastructure; a user's own error is never tried again."""

    max_attempts: int = Field(3, ge=1, le=20, description="of one run; attempts that were paused or preempted are free")
    backoff_seconds: float = Field(
        5.0, ge=0, le=3600, description="before the second attempt; six times more before each next"
    )


class Budget(Contract):
    """What a job may use; one that has used it pauses with its last step saved, and can be resumed with more."""

    gpu_hours: float = Field(gt=0, le=1e9)


class DataShare(Contract):
    """Data beside a stage's training file; ``weight`` is how often an epoch passes over it."""

    file: str = Field(max_length=MAX_LOCATION)
    weight: float = Field(1.0, gt=0, le=100)


class StageRequest(Contract):
    """One training stage: its data and its settings.

    Data is the id of an uploaded file, an ``s3://`` address, or a path where the service runs on one machine.
    """

    stage: TrainingStage
    training_file: str = Field(max_length=MAX_LOCATION, description="an epoch passes over it once")
    mix: tuple[DataShare, ...] = Field((), max_length=16, description="more training data, each with a weight")
    validation_file: str | None = Field(None, max_length=MAX_LOCATION)
    template: str = Field("alpaca", max_length=64, description="prompt template by name")
    resources: Resources | None = Field(None, description="of this stage; null: the job's")
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    checkpoints: CheckpointPolicy = Field(default_factory=CheckpointPolicy)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)

    def files(self) -> dict[str, str]:
        """All data of the stage, by the field that names it."""
        named = {f"mix.{index}": share.file for index, share in enumerate(self.mix)}
        if self.validation_file:
            named["validation_file"] = self.validation_file
        return {"training_file": self.training_file, **named}


class DataSettings(Contract):
    """How data is compiled."""

    views: int = Field(
        1, ge=1, le=64, description="stored views of a picture: the centre crop, and beyond it random crops of training"
    )
    max_bad_share: float = Field(0.01, ge=0, le=1, description="share of unusable rows above which the job fails")


class JobFields(Contract):
    """What a job says beside its data, as it is submitted and as it is run."""

    adapter: AdapterConfig = Field(default_factory=AdapterConfig, description="what is trained around the base")
    data: DataSettings = Field(default_factory=DataSettings)
    resources: Resources = Field(default_factory=Resources)
    priority: Priority = Field("normal", description="class in the queue; of one class the oldest goes first")
    budget: Budget | None = None
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    suffix: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    metadata: Metadata = Field(default_factory=dict, description="at most 16 pairs of yours; jobs are found by them")


class JobRequest(JobFields):
    """A job with nothing left to be inferred: one or both stages on one base and one encoder."""

    model: str = Field(description="name of a base model in the object store")
    encoder: str = Field(IMAGEBIND, description="name of the frozen media encoder")
    training_file: str | None = None
    seed: int = Field(0, ge=0, le=MAX_SEED)
    start_from: str | None = Field(None, description="the model, job or checkpoint that the first stage starts from")
    stages: tuple[StageRequest, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode="after")
    def _stages_are_one_pipeline(self) -> JobRequest:
        check_order(self.stages)
        return self

    def resources_of(self, kind: str) -> Resources:
        """What a run of a kind asks for."""
        own = [stage.resources for stage in self.stages if stage.stage == kind and stage.resources]
        return own[0] if own else self.resources


def check_order(stages: Sequence[StageRequest]) -> None:
    """``ValueError`` for stages that are no pipeline."""
    order = [stage.stage for stage in stages]
    if order not in (["stage1"], ["stage2"], ["stage1", "stage2"]):
        raise ValueError(
            f"stages must be stage1, stage2, or stage1 followed by stage2, but are {' then '.join(order) or 'none'}"
        )
