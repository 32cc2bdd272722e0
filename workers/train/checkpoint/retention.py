"""Which checkpoints to keep: a pure decision."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ibllm_core.contract.job_spec import CheckpointPolicy


def kept(losses: Mapping[int, float | None], policy: CheckpointPolicy) -> set[int]:
    """The steps to keep, of all complete checkpoints with their validation losses, where those were measured."""
    steps = sorted(losses)
    measured = sorted((loss, step) for step, loss in losses.items() if loss is not None and math.isfinite(loss))
    chosen = set(steps[-policy.keep_last :])
    chosen.update(step for _, step in measured[: policy.keep_best])
    if policy.keep_every:
        chosen.update(step for step in steps if step % policy.keep_every == 0)
    return chosen
