"""What a user submits: the body of ``POST /v1/fine_tuning/jobs``, and the resources it asks for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.base import Contract

TrainingStage = Literal["stage1", "stage2"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
ZeroStage = Literal[0, 1, 2, 3]
Offload = Literal["none", "optimizer", "parameters"]
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
        None, ge=16, description="tokens of one forward pass of a worker; null: what its memory allows"
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
    max_steps: int | None = Field(None, ge=1, description="end after so many steps, wherever the epoch stands")
    learning_rate: float = Field(4e-4, gt=0, description="peak rate of everything but the gates")
    gate_learning_rate: float = Field(1e-2, gt=0, description="peak rate of the gates, which never decay")
    layer_decay: float = Field(1.0, gt=0, le=1, description="factor of the rate from a layer to the one before it")
    final_rate_share: float = Field(0.0, ge=0, le=1, description="share of the peak rate that the cosine ends at")
    weight_decay: float = Field(0.02, ge=0, description="of matrices; gates, norms and biases never decay")
    warmup_share: float = Field(0.06, ge=0, lt=1, description="share of the steps with a rising rate")
    warmup_steps: int | None = Field(None, ge=0, description="in steps; instead of warmup_share")
    warmup_epochs: float | None = Field(None, ge=0, description="in epochs; instead of warmup_share")
    gradient_clip: float = Field(1.0, gt=0)
    row_tokens: int = Field(256, ge=16, le=65536, description="tokens of a packed row")
    rows_per_step: int = Field(2, ge=1, description="packed rows of one optimizer step, over all workers")

    @model_validator(mode="after")
    def _one_warmup(self) -> Hyperparameters:
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise ValueError("warmup_steps and warmup_epochs are both given: leave one of them out")
        return self


class CheckpointPolicy(Contract):
    """When a training run saves, and what it keeps; the newest checkpoint is always kept."""

    every_seconds: float = Field(60.0, gt=0, description="what a crash may cost; a save costs the training little")
    every_steps: int | None = Field(None, ge=1, description="instead of every_seconds")
    keep_last: int = Field(2, ge=1, le=1000)
    keep_best: int = Field(1, ge=0, le=1000, description="those of the lowest validation loss, where it is measured")
    keep_every: int | None = Field(None, ge=1, description="those of steps that are multiples of this")


class EvaluationSettings(Contract):
    """What is measured on validation data while training."""

    every_steps: int | None = Field(None, ge=1, description="null: at the end of each epoch")
    max_samples: int = Field(256, ge=1, description="of the validation data, from its start")


class DataShare(Contract):
    """Data beside a stage's training file; ``weight`` is how often an epoch passes over it."""

    file: str
    weight: float = Field(1.0, gt=0, le=100)


class StageRequest(Contract):
    """One training stage: its data and its settings.

    Data is the id of an uploaded file, an ``s3://`` address, or a path where the service runs on one machine.
    """

    stage: TrainingStage
    training_file: str = Field(description="an epoch passes over it once")
    mix: tuple[DataShare, ...] = Field((), max_length=16, description="more training data, each with a weight")
    validation_file: str | None = None
    template: str = Field("alpaca", description="prompt template by name")
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


class JobRequest(Contract):
    """A job: the two-stage pipeline on one base and one encoder."""

    model: str = Field(description="name of a base model in the object store")
    encoder: str = Field(IMAGEBIND, description="name of the frozen media encoder")
    training_file: str | None = Field(None, description="OpenAI's field; must be the first stage's file when given")
    stages: tuple[StageRequest, ...] = Field(min_length=1, max_length=2)
    adapter: AdapterConfig = Field(default_factory=AdapterConfig, description="what is trained around the base")
    data: DataSettings = Field(default_factory=DataSettings)
    resources: Resources = Field(default_factory=Resources)
    seed: int = Field(0, ge=0, le=2**31 - 1)
    suffix: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    metadata: dict[str, str] = Field(default_factory=dict, max_length=16)

    @model_validator(mode="after")
    def _stages_are_one_pipeline(self) -> JobRequest:
        order = [stage.stage for stage in self.stages]
        if order != ["stage1", "stage2"]:
            raise ValueError(
                f"stages must be stage1 followed by stage2, but are {' then '.join(order)}; "
                "starting from an earlier job's stage 1 is not supported yet"
            )
        if self.training_file not in (None, self.stages[0].training_file):
            raise ValueError("training_file must be stages[0].training_file, or be left out")
        return self
