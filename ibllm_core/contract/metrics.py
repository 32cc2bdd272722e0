"""The names of metrics, as MLflow, reports and result files all use them."""

from __future__ import annotations

TRAIN_LOSS = "train/loss"
TRAIN_LEARNING_RATE = "train/lr"
TRAIN_GRAD_NORM = "train/grad_norm"
TRAIN_TOKENS_PER_SECOND = "train/tokens_per_second"
TRAIN_USEFUL_TOKEN_SHARE = "train/useful_token_share"  # noqa: S105 (no password)
TRAIN_FLOPS_UTILISATION = "train/flops_utilisation"
TRAIN_SKIPPED_STEPS = "train/skipped_steps"
EVAL_LOSS = "eval/loss"
EVAL_LOSS_BEFORE = "eval/loss_before"
EVAL_LOSS_SHUFFLED = "eval/loss_shuffled"
EVAL_ACCURACY = "eval/accuracy"
EVAL_ACCURACY_SHUFFLED = "eval/accuracy_shuffled"
EVAL_CIDER = "eval/cider"
EVAL_VQA_ACCURACY = "eval/vqa_accuracy"
GATE_ABS_MEAN = "gate/abs_mean"
GATE_ABS_MAX = "gate/abs_max"
GATE_OPEN_SHARE = "gate/open_share"

GATE_OPEN_THRESHOLD = 1e-3  # a gate above this magnitude counts as open


def eval_bleu(n: int) -> str:
    """BLEU-n of captions."""
    return f"eval/bleu_{n}"


def eval_science_qa(column: str) -> str:
    """The share of right choices in a column of ScienceQA's table."""
    return f"eval/science_qa/{column}"


def with_shuffled_media(name: str) -> str:
    """What an evaluation's metric is called where each sample saw another one's medium."""
    return f"{name}_shuffled"


def gate_layer(layer: int) -> str:
    """Mean magnitude of one layer's gates."""
    return f"gate/layer_{layer:02d}/abs_mean"
