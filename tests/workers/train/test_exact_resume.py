"""A run that was killed, however often and wherever, ends as one that was not, bit by bit; dropout is on."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ibllm_core.contract import metrics as names
from ibllm_core.contract.run_spec import TrainSpec
from tests.workers.train import runs, tiny, world

EPOCHS, LAST_STEP = 17, 85  # long enough that a logged loss is the mean of two steps, of which a save may lie between
QUICK = 4
# What a process measures of its own steps: not of those before it in a window of two.
MEASURED = {names.TRAIN_TOKENS_PER_SECOND, names.TRAIN_FLOPS_UTILISATION, names.TRAIN_USEFUL_TOKEN_SHARE}
SEEDS = [
    pytest.param(seed, marks=pytest.mark.skipif(seed >= QUICK and "IBLLM_FAULTS" not in os.environ, reason="slow"))
    for seed in range(24)
]


def spec(ranks: int, zero_stage: int = 0) -> TrainSpec:
    return tiny.small(
        "stage2",
        hyperparameters={"n_epochs": EPOCHS},
        checkpoints={"every_steps": 7},
        evaluation={"every_steps": 20},
        resources={"workers": ranks, "zero_stage": zero_stage},
    )


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.furnish(tmp_path_factory.mktemp("resume") / "world")


@pytest.fixture(scope="module")
def uninterrupted(furnished: Path) -> dict[tuple[int, int], Path]:
    """A store with the whole run, by ranks and ZeRO stage."""
    found = {}
    for ranks, zero_stage in ((1, 0), (2, 0), (2, 2)):
        found[ranks, zero_stage] = runs.twin(furnished, f"whole-{ranks}-{zero_stage}")
        runs.finish(found[ranks, zero_stage], spec(ranks, zero_stage), ranks=ranks)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    furnished: Path, uninterrupted: dict[tuple[int, int], Path], seed: int
) -> None:
    rng = random.Random(seed)
    ranks, zero_stage = ((1, 0), (2, 0), (1, 0), (2, 2))[seed % 4]
    whole, root = uninterrupted[ranks, zero_stage], runs.twin(furnished, f"killed-{seed}")
    kills = [runs.Kill.drawn(rng, last_step=LAST_STEP, ranks=ranks) for _ in range(rng.randint(1, 3))]
    for number, kill in enumerate(kills, start=1):
        ended = runs.train(root, runs.attempt(spec(ranks, zero_stage), number), ranks=ranks, kill=kill)
        was_late = ended.results[0] is not None and ended.results[0]["reason"] == "succeeded"
        assert was_late or ended.codes[kill.rank] == -signal.SIGKILL, "\n".join(ended.output)
    runs.finish(root, runs.attempt(spec(ranks, zero_stage), len(kills) + 1), ranks=ranks)

    assert_same_results(root, whole)
    assert logged(root) == logged(whole)
    assert all(len(values) == 1 for values in logged(root).values())
    assert_same_data(root, whole, ranks)
    print(f"seed {seed}: {ranks} ranks, ZeRO {zero_stage}, killed {describe(root, kills)}: bit-equal")


def assert_same_results(root: Path, other: Path) -> None:
    assert tiny.checkpoints(root, "stage2")[-1] == tiny.checkpoints(other, "stage2")[-1] == LAST_STEP
    ours, theirs = tiny.weights(root, "stage2"), tiny.weights(other, "stage2")
    assert ours.keys() == theirs.keys()
    assert {name.rpartition("/")[2] for name in ours if "/" in name} == {"exp_avg", "exp_avg_sq"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert adapter(root) == adapter(other)


def assert_same_data(root: Path, other: Path, ranks: int) -> None:
    """Every attempt reads what the uninterrupted run read at that step, and begins right after its checkpoint."""
    expected = {(line["rank"], line["step"]): content(line) for line in runs.read(other)}
    found = runs.read(root)
    assert all(content(line) == expected[line["rank"], line["step"]] for line in found)
    for attempt in {line["attempt"] for line in found}:
        steps = [line["step"] for line in found if line["attempt"] == attempt and line["rank"] == 0]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
    last = {(line["rank"], line["step"]): line for line in found}
    assert sorted(last) == [(rank, step) for rank in range(ranks) for step in range(1, LAST_STEP + 1)]
    rows = [(line["epoch"], row) for (rank, _), line in last.items() if rank == 0 for row in line["rows"]]
    seen = Counter((epoch, sample) for epoch, row in rows for sample in row)
    assert seen == {(epoch, sample): 1 for epoch in range(EPOCHS) for sample in range(tiny.SAMPLES)}
    for (rank, step), line in last.items():
        if rank == 0:
            assert sum(last[r, step]["labels"][0] for r in range(ranks)) == line["labels"][1]


def content(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["epoch"], line["rows"], line["labels"]


def logged(root: Path) -> dict[tuple[str, int], list[float]]:
    """All that was logged of a metric and step."""
    found = defaultdict(list)
    for entry in tiny.logged(root, "stage2"):
        for name, value in entry.metrics.items():
            found[name, entry.step].append(0.0 if name in MEASURED else value)
    return found


def adapter(root: Path) -> bytes:
    (path,) = (root / world.spec().adapter_prefix).glob("*.safetensors")
    return path.read_bytes()


def describe(root: Path, kills: list[runs.Kill]) -> str:
    reached = {line["attempt"]: line["step"] for line in runs.read(root)}
    return ", ".join(
        f"{kill.moment} (rank {kill.rank}, step {reached.get(number, 0)})" for number, kill in enumerate(kills, start=1)
    )
