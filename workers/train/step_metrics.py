"""What the service is told of a step, in the names of OpenAI's fine-tuning API, and of ours for what that lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ibllm_core.contract import metrics as names

FULL_VALIDATION_LOSS = "eval/full_loss"  # the validation's, where that saw all of its data; is not logged
TOLD = {
    names.TRAIN_LOSS: "train_loss",
    names.EVAL_LOSS: "valid_loss",
    FULL_VALIDATION_LOSS: "full_valid_loss",
    names.TRAIN_LEARNING_RATE: "learning_rate",
    names.GATE_ABS_MEAN: "gate_abs_mean",
    names.GATE_ABS_MAX: "gate_abs_max",
    names.GATE_OPEN_SHARE: "gate_open_share",
}


def step_metrics(step: int, measured: Mapping[str, float]) -> dict[str, float]:
    """Of a step's metrics those that are told, and are finite: JSON has no other numbers. Pure."""
    told = {name: measured[metric] for metric, name in TOLD.items() if math.isfinite(measured.get(metric, math.nan))}
    return {"step": step, **told}
