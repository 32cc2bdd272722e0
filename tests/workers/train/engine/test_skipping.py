"""What the device alone decides: skipping, loss scale and clipping, without a look of the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ibllm_core.contract.job_spec import Offload
from tests.workers.train import engines, gang

# Whatever brings a figure from the device to the host, or a shape that depends on one.
WAITS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "_unique2")


def test_a_step_asks_the_device_nothing() -> None:
    assert gang.run(train_unasked) == [{0: 3, 1: 3, 2: 3}]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(ranks: int) -> None:
    for moved, health, updates in gang.run(skip_all, ranks=ranks)[0].values():
        assert moved == [True, False, True]
        assert [counts[:2] for counts in health] == [(0, 0), (1, 1), (1, 0)]
        assert updates == [2, 2, 3]


def test_the_loss_scale_of_fp16_falls_when_gradients_overflow_and_is_restored(tmp_path: Path) -> None:
    before, after, restored, losses = gang.run(overflow, tmp_path)[0]
    assert (after, restored) == (before / 2, before / 2)
    assert losses[-1] < losses[0]


def test_gradients_are_clipped_by_their_norm_over_all_ranks() -> None:
    ((norm, clipped),) = gang.run(clip)
    assert norm > 0.1
    assert clipped == pytest.approx(0.1, rel=1e-5)


class Unasked(TorchDispatchMode):
    """Raises where the host would wait for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in WAITS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def train_unasked() -> dict[int, int]:
    found = {}
    for zero_stage in (0, 1, 2):
        rig = engines.rig(zero_stage=zero_stage, micro_rows=2, dtype=torch.bfloat16)
        rig.train(1, 1)
        steps = list(rig.feed.steps(2, 4, pin=False))
        with pytest.raises(AssertionError, match="waits for the device"), Unasked():
            rig.engine.health[0].item()
        with Unasked():
            for step in steps:
                engines.train_step(rig.engine, step, 1.0, engines.CPU)
        found[zero_stage] = rig.engine.updates - 1
    return found


def skip_all() -> dict[tuple[int, Offload], tuple[list[bool], list[tuple[float, ...]], list[int]]]:
    worlds: list[tuple[int, Offload]] = [(0, "none"), (1, "none"), (2, "none"), (3, "none")]
    worlds += [(1, "optimizer"), (3, "parameters")]
    return {world: skip(*world) for world in worlds}


def skip(zero_stage: int, offload: Offload) -> tuple[list[bool], list[tuple[float, ...]], list[int]]:
    """Three steps after the first, of which the second has features that are no numbers."""
    good, bad = engines.data(), engines.data(bad=tuple(range(engines.SAMPLES)))
    rig = engines.rig(zero_stage=zero_stage, offload=offload)
    rig.train(1, 1)  # opens the gates: behind closed ones the bind network has no gradient
    moved, health, updates = [], list[tuple[float, ...]](), []
    for number, data in enumerate((good, bad, good), start=2):
        rig.feed.corpus.parts = (data,)
        before = [f.weight.clone() for f in rig.engine.fragments()]
        moments = [m.clone() for f in rig.engine.fragments() for m in f.moments.values()]
        rig.train(number, number)
        after = [f.weight for f in rig.engine.fragments()]
        assert all(weight.isfinite().all() for weight in after)
        changed = not all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        now = [m for f in rig.engine.fragments() for m in f.moments.values()]
        assert changed is not all(torch.equal(*pair) for pair in zip(moments, now, strict=True))
        moved.append(changed)
        health.append(tuple(rig.engine.health.tolist()))
        updates.append(rig.engine.updates)
    return moved, health, updates


def overflow(root: Path) -> tuple[float, float, float, list[float]]:
    rig = engines.rig(dtype=torch.float16)
    before, losses = rig.engine.loss_scale, rig.train(1, 8)
    rig.feed.corpus.parts = (engines.data(bad=tuple(range(engines.SAMPLES))),)
    rig.train(9, 9)
    engines.save(rig, root, 9)
    other = engines.rig(dtype=torch.float16)
    engines.load(other, root)
    return before, rig.engine.loss_scale, other.engine.loss_scale, losses


def clip() -> tuple[float, float]:
    """The norm of the first gradient, and of what AdamW took of it by its first moment."""
    rig = engines.rig(settings=engines.SETTINGS.model_copy(update={"gradient_clip": 0.1}))
    rig.train(1, 1)
    moments = torch.cat([fragment.moments["exp_avg"] for fragment in rig.engine.fragments()])
    return float(rig.engine.health[2]), float(moments.norm()) / (1 - 0.9)
