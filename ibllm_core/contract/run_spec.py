"""What a worker is told: the spec of one attempt, and the typed words it sends back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import CheckpointPolicy, DataSettings, EvaluationSettings, Hyperparameters, Resources
from ibllm_core.contract.states import TerminationReason


class AttemptSpec(Contract):
    """Common to the attempts of every kind of run; lies in the object store as ``spec.json``."""

    job_id: str
    run_id: str
    attempt_id: str
    attempt_number: int
    service_url: str
    token: str = Field(description="this attempt's own credential for the service's internal routes")
    base: str
    encoder: str
    adapter: AdapterConfig
    seed: int
    resources: Resources


class CompileInput(Contract):
    """One file, folder or address to compile.

    ``name`` is the field of the job that names it; ``key``, ``filename`` and ``sha256`` are those of an uploaded file.
    """

    name: str
    location: str
    key: str | None = None
    filename: str | None = None
    sha256: str | None = None
    template: str
    row_tokens: int


class CompileSpec(AttemptSpec):
    """Turn data into datasets of features and tokens; the output ``datasets`` has the id of each input, by its name."""

    kind: Literal["compile"] = "compile"
    inputs: tuple[CompileInput, ...]
    data: DataSettings
    data_prefixes: tuple[str, ...] = Field((), description="below which s3:// media of rows may lie")


class DatasetShare(Contract):
    """A compiled dataset and how often an epoch passes over it."""

    dataset: str
    weight: float


class TrainSpec(AttemptSpec):
    """Train one stage."""

    kind: Literal["train"] = "train"
    stage: Literal["stage1", "stage2"]
    datasets: tuple[DatasetShare, ...]
    validation_dataset: str | None = Field(None, description="compiled; measured while training")
    template: str
    parent_adapter: str | None = Field(
        description="object-store prefix of the adapter or checkpoint to begin from: for stage 1 one of stage 1, for "
        "stage 2, which needs it, one of either stage"
    )
    hyperparameters: Hyperparameters
    checkpoints: CheckpointPolicy = Field(default_factory=CheckpointPolicy)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    adapter_prefix: str = Field(description="where the finished adapter goes in the object store")


class EvaluateSpec(AttemptSpec):
    """Measure one or both stages on held-out data, with the right and with shuffled media.

    A stage without an adapter is left out; of an adapter without a dataset only the gates are measured.
    """

    kind: Literal["evaluate"] = "evaluate"
    stage1_adapter: str | None = None
    stage2_adapter: str | None = None
    caption_dataset: str | None = Field(None, description="compiled; stage 1 is measured on it")
    question_dataset: str | None = Field(None, description="compiled; stage 2 is measured on it")
    caption_template: str = Field("alpaca", description="that of caption_dataset")
    question_template: str = Field("alpaca", description="that of question_dataset")
    max_samples: int = Field(256, ge=1, description="of each measurement, from the start of the held-out data")

    @model_validator(mode="after")
    def _has_an_adapter(self) -> EvaluateSpec:
        if self.stage1_adapter is None and self.stage2_adapter is None:
            raise ValueError("stage1_adapter and stage2_adapter are both missing: name at least one adapter")
        return self


RunSpec = Annotated[CompileSpec | TrainSpec | EvaluateSpec, Field(discriminator="kind")]


class Progress(Contract):
    """A heartbeat: that the attempt lives, and how far it is."""

    phase: str
    rank: int = Field(0, ge=0, description="whose word this is; rank 0's is what users see")
    step: int = 0
    total_steps: int = 0
    seconds_left: float | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    gate_abs_mean: float | None = None
    nodes: tuple[str, ...] = ()


class EventReport(Contract):
    """Something the user should read. A report that is sent again under its ``id`` is told once.

    The ``data`` of type ``metrics`` has those of a step by name, with ``total_steps`` and ``tokens_per_second``.
    """

    id: str
    type: Literal["message", "metrics"] = "message"
    level: Literal["info", "warn", "error"] = "info"
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


class CheckpointReport(Contract):
    """A checkpoint that can be used, told once a run and step however often it is sent.

    ``metrics`` has what was measured of the step: OpenAI's ``step``, ``train_loss``, ``valid_loss`` and
    ``full_valid_loss``, and ``learning_rate``, ``gate_abs_mean``, ``gate_abs_max`` and ``gate_open_share``. ``kept``
    are the steps of all of the run's checkpoints that exist now, this one among them: others are no more.
    """

    step: int
    prefix: str = Field(description="where it is in the object store")
    metrics: dict[str, float]
    kept: tuple[int, ...]


class ResultFile(Contract):
    """A file in the object store that the user may download through the files API."""

    key: str
    filename: str
    bytes: int


class Outcome(Contract):
    """How an attempt ended, in its own words."""

    reason: TerminationReason
    message: str = ""
    outputs: dict[str, Any] = Field(default_factory=dict)
    result_files: tuple[ResultFile, ...] = ()
