"""Which checkpoints to keep, and which is the best: pure decisions over their validation losses, where measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ibllm_core.contract.job_spec import CheckpointPolicy


def kept(losses: Mapping[int, float | None], policy: CheckpointPolicy) -> set[int]:
    """The steps to keep, of all complete checkpoints."""
    steps = sorted(losses)
    chosen = {*steps[-policy.keep_last :], *best_first(losses)[: policy.keep_best]}
    if policy.keep_every:
        chosen.update(step for step in steps if step % policy.keep_every == 0)
    return chosen


def best_first(losses: Mapping[int, float | None]) -> list[int]:
    """The steps with a finite loss, the lowest first; of equal ones the earlier."""
    finite = sorted((loss, step) for step, loss in losses.items() if loss is not None and math.isfinite(loss))
    return [step for _, step in finite]
