"""Time stage 1 against a simple loop, and each lever between them: ``python -m tests.benchmarks.training``.

One process, alternate turns, the same samples in every global batch. The simple loop (``simple_loop.py``) works as the
released trainer does; ours is the step of ``workers/train``. The table switches one thing after another.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ibllm_core.encoders.efficientnet_lite import EfficientNetLite0
from tests.benchmarks.simple_loop import SimpleLoop
from tests.benchmarks.training_data import PACKAGES, PROMPTS, Material, material
from tests.benchmarks.training_ladder import (
    Fused,
    LabelledHead,
    Ours,
    Packed,
    WithinSamples,
    in_dtype,
    members_of,
    twin,
)
from tests.benchmarks.training_table import heading, table
from tests.benchmarks.training_world import alone
from workers.model_loading import choose_dtype
from workers.train.feed import Step

GOAL = 10.0
TURNS = 3
ROW_TOKENS = 256
SAMPLES = 256
GLOBAL_BATCH = 32  # the released script's: 8 GPUs by 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--template", choices=sorted(PROMPTS), default="alpaca", help="the released trainer's, or ours")
    parser.add_argument("--packages", type=Path, default=PACKAGES, help="where the demo left its packages")
    parser.add_argument("--batch", type=int, default=GLOBAL_BATCH, help="samples of a global batch, about")
    parser.add_argument("--turns", type=int, default=TURNS)
    chosen = parser.parse_args()
    encoder = EfficientNetLite0()
    data = material(encoder, template=chosen.template, samples=SAMPLES, packages=chosen.packages)
    heading(
        "Stage 1 against a simple loop",
        f"{data.source}, template {chosen.template}, {data.mean_tokens:.0f} tokens each.",
    )
    rows = max(1, round(chosen.batch * data.mean_tokens / ROW_TOKENS))
    report(data, encoder, rows=rows, turns=chosen.turns)


def report(data: Material, encoder: EfficientNetLite0, *, rows: int, turns: int) -> list[float]:
    """Print the table; returns the samples a second of each rung of the ladder."""
    with alone():
        loops, ours = ladder(data, encoder, choose_dtype("auto"), rows)
        ways: dict[str, Callable[[Step], object]] = {
            **{lever: partial(_over_members, loop) for lever, loop in loops.items()},
            "ours: a global batch as one micro-batch": lambda step: ours.step(step).item(),
        }
        first, *steps = ours.steps(turns + 1)
        for way in ways.values():
            way(first)
        turns_of = _in_turns(ways, steps)
    rates = [statistics.median(found) for found in turns_of]
    befores = [rates[0], *rates]
    table(
        ["from the simple loop, one after another", "samples/s", "factor", "so far"],
        [
            (lever, f"{rate:.2f}", f"{rate / before:.2f}", f"{rate / rates[0]:.2f}")
            for lever, rate, before in zip(ways, rates, befores, strict=False)
        ],
    )
    ratio = statistics.median(last / first for first, last in zip(turns_of[0], turns_of[-1], strict=True))
    print(f"Ours against the simple loop, median of {turns} turns: **{ratio:.1f}** (goal: {GOAL:.0f} or more).")
    print(f"Samples of the global batches: {', '.join(str(len(members_of(step))) for step in steps)}.")
    return rates


def ladder(
    data: Material, encoder: EfficientNetLite0 | None, dtype: torch.dtype, rows: int
) -> tuple[dict[str, SimpleLoop], Ours]:
    """The simple loop, with one lever more each time, and the trainer that has them all."""
    whole, low = data.llama, in_dtype(data.llama, dtype)
    loops = {
        "the simple loop": SimpleLoop(twin(whole), data, encoder),
        "encoder out of the loop": SimpleLoop(twin(whole), data),
        f"{dtype}".removeprefix("torch."): SimpleLoop(twin(low), data),
        "samples packed, not padded to 96": Packed(twin(low), data),
        "head on labels": LabelledHead(twin(low), data),
        "attention within samples": WithinSamples(twin(low), data),
        "fused norms, loss and AdamW, no host sync": Fused(twin(low), data),
    }
    return loops, Ours(twin(low), data.dataset, row_tokens=ROW_TOKENS, rows=rows)


def _over_members(loop: SimpleLoop, step: Step) -> float:
    return loop.step(members_of(step))


def _in_turns(ways: dict[str, Callable[[Step], object]], steps: list[Step]) -> list[list[float]]:
    """Samples a second of each way, over the same steps."""
    rates: list[list[float]] = [[] for _ in ways]
    for step in steps:
        for way, found in zip(ways.values(), rates, strict=True):
            started = time.perf_counter()
            way(step)
            found.append(len(members_of(step)) / (time.perf_counter() - started))
    return rates


if __name__ == "__main__":
    main()
