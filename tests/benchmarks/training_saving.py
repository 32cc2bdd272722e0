"""What checkpoints cost the training: ``python -m tests.benchmarks.training_saving``.

Blocks of steps of SmolLM2-135M's shape in turns: one without a save, one that saves after its first step to a folder,
one that saves to a real object store (SeaweedFS) on this machine. The saver is the one of ``workers/train``. On a CPU a
save takes its time from the very cores that train, and so does the store that is served beside; a block is long enough
for a save to end in it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from ibllm_core.contract.job_spec import CheckpointPolicy
from ibllm_core.local_store import LocalStore
from ibllm_core.storage import ObjectStore, Store
from tests.benchmarks.training_ladder import Ours
from tests.benchmarks.training_table import heading, table
from tests.benchmarks.training_use import trainer
from tests.benchmarks.training_world import alone
from tests.ibllm_core.formats.object_store import running_store
from workers.train.checkpoint.listing import Checkpoints
from workers.train.checkpoint.saver import Saver
from workers.train.checkpoint.state import CheckpointState

GOAL = 0.02
TURNS, BLOCK, TOKENS = 3, 10, 1024
POLICY = CheckpointPolicy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--block", type=int, default=BLOCK, help="steps, of which the first is saved")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a step")
    chosen = parser.parse_args()
    heading("Checkpoints", f"Blocks of {chosen.block} steps of {chosen.tokens} tokens.")
    with tempfile.TemporaryDirectory() as folder, alone():
        report(Path(folder), turns=chosen.turns, block=chosen.block, tokens=chosen.tokens)


def report(folder: Path, *, turns: int, block: int, tokens: int, num_layers: int = 30) -> dict[str, Saving]:
    """Print the table; returns what was measured of each store."""
    with running_store(folder) as served:
        ours = trainer(tokens, num_layers)
        savings = {
            "folder": Saving(LocalStore(folder / "local"), ours, folder / "scratch-1"),
            "object store": Saving(ObjectStore(served.settings), ours, folder / "scratch-2"),
        }
        times = _in_turns(ours, {"nothing": None, **savings}, turns, block)
    plain = statistics.median(times["nothing"])
    table(
        [
            "saved to",
            f"{block} steps, s",
            f"longer, a save each {block} steps",
            f"longer, a save each {POLICY.every_seconds:.0f} s, the default",
            "the step waits, ms",
            "durable after, s",
            "MB",
        ],
        [
            ("nothing", f"{plain:.2f}", "", "", "", "", ""),
            *(_line(name, saving, statistics.median(times[name]), plain) for name, saving in savings.items()),
        ],
    )
    print(f"Goal: under {GOAL:.0%} at the default.")
    return savings


def _line(name: str, saving: Saving, taken: float, plain: float) -> tuple[str, ...]:
    return (
        name,
        f"{taken:.2f}",
        f"{taken / plain - 1:.1%}",
        f"{(taken - plain) / POLICY.every_seconds:.2%}",
        f"{statistics.median(saving.waits) * 1000:.0f}",
        f"{statistics.median(saving.durable):.2f}",
        f"{saving.checkpoints.bytes / 1e6:.0f}",
    )


class _Timed(Checkpoints):
    """Remembers when the last checkpoint became real, and how large it is."""

    durable_at, bytes = 0.0, 0

    def commit(self, state: CheckpointState, files: Mapping[str, Any]) -> None:
        super().commit(state, files)
        self.durable_at = time.monotonic()
        self.bytes = sum(entry["bytes"] for entry in files.values())


@dataclass
class Saving:
    """A store with what was measured of saves to it, in seconds."""

    store: Store
    ours: Ours
    scratch: Path
    waits: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.checkpoints = _Timed(self.store, "bench", "stage1")
        self.saver = Saver(self.ours.engine, self.checkpoints, POLICY, self.scratch)
        self._saves = 0
        self._started = 0.0

    def save(self) -> None:
        self._saves += 1
        self._started = time.monotonic()
        self.saver.save(_state(self._saves), b"")
        self.waits.append(time.monotonic() - self._started)

    def end(self) -> None:
        self.saver.wait()
        self.durable.append(self.checkpoints.durable_at - self._started)


def _in_turns(ours: Ours, ways: Mapping[str, Saving | None], turns: int, block: int) -> dict[str, list[float]]:
    """Seconds of each block; the first turn warms up."""
    steps = cycle(ours.steps(4))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, saving in ways.items():
            started = time.monotonic()
            for number in range(block if turn else 1):
                ours.step(next(steps))
                if saving and number == 0:
                    saving.save()
            taken = time.monotonic() - started
            if saving:
                saving.end()
            if turn:
                times[name].append(taken)
    return times


def _state(step: int) -> CheckpointState:
    return CheckpointState(
        step=step, updates=step, tokens=0, loss_scale=1.0, recipe="", base_sha256="", world_size=1, zero_stage=0
    )


if __name__ == "__main__":
    main()
