"""What a checkpoint says of itself, beside its tensors."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Annotated

from pydantic import ConfigDict, Field, Strict

from ibllm_core.adapter.header import AdapterHeader
from ibllm_core.contract.base import Contract
from ibllm_core.contract.run_spec import TrainSpec

STATE_FILE = "state.json"
HISTORY_FILE = "history.jsonl"
WEIGHTS, OPTIMIZER = "trainable", "optimizer"  # stems of the files with tensors
PACKAGES = ("ibllm", "torch", "deepspeed", "transformers")
# What a run may change between its attempts: none of it changes what is computed.
NOT_IN_RECIPE = frozenset(
    {"job_id", "run_id", "attempt_id", "attempt_number", "service_url", "token", "resources", "checkpoints"}
    | {"evaluation", "validation_dataset", "adapter_prefix"}
)


# JSON has no NaN and no infinity: they stand in it as words.
Loss = Annotated[float, Strict(False)]


class CheckpointState(Contract):
    """``state.json``: all that a training needs to go on, but for weights and moments.

    The sampler's position is ``step``, since the batches are a function of data, seed and settings. Random numbers are
    drawn anew each step from seed, step and rank, so that there is no generator to save.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")  # a loss that is not finite is no reason to lose a checkpoint

    step: int = Field(description="optimizer steps that were taken, of which the skipped ones changed nothing")
    updates: int = Field(description="steps that changed weights: Adam's own count")
    tokens: int = Field(description="real tokens that were trained on")
    loss_scale: float = Field(description="of fp16; 1 in other precisions")
    window_loss: Loss = Field(0.0, description="sum of the losses since the last logged step, of window_steps")
    window_steps: int = 0
    skipped_steps: int = Field(0, description="steps whose gradients were not finite")
    skipped_in_a_row: int = Field(0, description="of them the newest, without a step between that counted")
    recipe: str = Field(description="hash of all that decides what is computed")
    base_sha256: str
    validation_loss: Loss | None = None
    metrics: dict[str, float] = Field(default_factory=dict, description="as the service is told them; all are finite")
    header: AdapterHeader | None = Field(None, description="of the adapter that these weights make; null: not known")
    dtype: str | None = Field(None, description="of the model, in which an adapter has what the run keeps frozen")
    world_size: int = Field(description="of the world that wrote it; any other may read it")
    zero_stage: int = Field(description="as world_size")
    versions: dict[str, str] = Field(default_factory=lambda: {name: version(name) for name in PACKAGES})


def recipe_of(spec: TrainSpec) -> str:
    """SHA-256 of the parts of a spec that decide what is computed; one machine or eight are the same recipe."""
    kept = spec.model_dump_json(exclude=set(NOT_IN_RECIPE))
    return hashlib.sha256(kept.encode()).hexdigest()
