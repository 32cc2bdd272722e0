"""What a worker is told: the spec of one attempt, and the typed words it sends back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import DataSettings, Hyperparameters, Resources
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


class DatasetShare(Contract):
    """A compiled dataset and how often an epoch passes over it."""

    dataset: str
    weight: float


class TrainSpec(AttemptSpec):
    """Train one stage."""

    kind: Literal["train"] = "train"
    stage: Literal["stage1", "stage2"]
    datasets: tuple[DatasetShare, ...]
    template: str
    parent_adapter: str | None = Field(description="object-store prefix of the stage-1 adapter; stage 2 needs it")
    hyperparameters: Hyperparameters
    mlflow_run_id: str
    adapter_prefix: str = Field(description="where the finished adapter goes in the object store")


class EvaluateSpec(AttemptSpec):
    """Measure both stages on held-out data, with the right and with shuffled media."""

    kind: Literal["evaluate"] = "evaluate"
    stage1_adapter: str
    stage2_adapter: str
    caption_dataset: str | None
    question_dataset: str | None
    caption_template: str
    question_template: str
    mlflow_run_id: str


RunSpec = Annotated[CompileSpec | TrainSpec | EvaluateSpec, Field(discriminator="kind")]


class Progress(Contract):
    """A heartbeat: that the attempt lives, and how far it is."""

    phase: str
    step: int = 0
    total_steps: int = 0
    seconds_left: float | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    gate_abs_mean: float | None = None
    nodes: tuple[str, ...] = ()


class EventReport(Contract):
    """Something the user should read."""

    level: Literal["info", "warn", "error"] = "info"
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


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
