"""What a job would cost, as a dry run says it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import JobRequest, Offload, TrainingStage, ZeroStage
from ibllm_core.contract.submission import JobSubmission


class MemoryEstimate(Contract):
    """Bytes of one worker of a stage, and how the training would be spread."""

    bytes: int
    zero_stage: ZeroStage
    offload: Offload
    micro_batch_tokens: int
    why: str


class StageEstimate(Contract):
    """A stage; None is what cannot be known before the data is read or its like has been run."""

    stage: TrainingStage
    samples: int | None
    tokens: int | None = Field(description="of all epochs")
    tokens_are_counted: bool = Field(description="by a tokenizer when the file was checked; else told by characters")
    steps: int | None
    tokens_per_second: float | None
    basis: str = Field(description="where the rate comes from")
    seconds: float | None
    gpu_hours: float | None
    memory: MemoryEstimate | None


class Estimate(Contract):
    """The answer of a dry run: the job as it would be, and what it would take."""

    object: Literal["fine_tuning.job.estimate"] = "fine_tuning.job.estimate"
    request: JobRequest | JobSubmission
    waits_for: list[str] = Field(description="files whose check must end first")
    stages: list[StageEstimate]
    seconds: float | None = Field(description="of training; the compile run and the measurement come on top")
    gpu_hours: float | None
    starts: str = Field(description="when it would start, in words")
    starts_at: int | None = Field(description="as a time; null where nobody can tell")
