"""The names of metrics, as MLflow, reports and result files all use them."""

from __future__ import annotations

TRAIN_LOSS = "train/loss"
TRAIN_LEARNING_RATE = "train/lr"
TRAIN_GRAD_NORM = "train/grad_norm"
TRAIN_TOKENS_PER_SECOND = "train/tokens_per_second"
TRAIN_USEFUL_TOKEN_SHARE = "train/useful_token_share"  # noqa: S105 (no password)
EVAL_LOSS = "eval/loss"
EVAL_LOSS_BEFORE = "eval/loss_before"
EVAL_LOSS_SHUFFLED = "eval/loss_shuffled"
EVAL_ACCURACY = "eval/accuracy"
EVAL_ACCURACY_SHUFFLED = "eval/accuracy_shuffled"
GATE_ABS_MEAN = "gate/abs_mean"
GATE_ABS_MAX = "gate/abs_max"
GATE_OPEN_SHARE = "gate/open_share"

GATE_OPEN_THRESHOLD = 1e-3  # a gate above this magnitude counts as open


def gate_layer(layer: int) -> str:
    """Mean magnitude of one layer's gates."""
    return f"gate/layer_{layer:02d}/abs_mean"
