"""A checkpoint knows no ranks and no ZeRO stage: what one world saved any other reads, bit by bit, and goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.workers.train import engines, gang

SAVED, LAST = 5, 10
WORLDS = [(ranks, zero_stage) for ranks in (1, 2) for zero_stage in range(4)]
CHANGES = [
    ((1, 0), (2, 0)),
    ((2, 0), (1, 0)),
    ((1, 1), (1, 3)),
    ((2, 3), (2, 0)),
    ((2, 2), (2, 1)),
    ((2, 1), (1, 2)),
    ((1, 3), (2, 2)),
    ((1, 0), (2, 3)),
    ((2, 3), (1, 1)),
    ((1, 2), (2, 1)),
    ((2, 3), (2, 3)),
]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOLERANCES = {"fp32": 2e-6, "bf16": 2e-3}


@pytest.fixture(scope="module", params=DTYPES)
def precision(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def saved(precision: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of each world."""
    root = tmp_path_factory.mktemp(precision)
    for ranks in (1, 2):
        gang.run(save_all, root, precision, ranks=ranks)
    return root


@pytest.fixture(scope="module")
def continued(precision: str, saved: Path) -> dict[tuple[tuple[int, int], tuple[int, int]], list[float]]:
    """The losses of each change's further steps."""
    return {
        change: losses
        for ranks in (1, 2)
        for change, losses in gang.run(continue_all, saved, precision, ranks=ranks)[0].items()
    }


@pytest.fixture(scope="module")
def expected(precision: str) -> list[float]:
    losses: list[float] = gang.run(train_through, precision)[0]
    return losses


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_run_goes_on_in_another_world(
    continued: dict[tuple[tuple[int, int], tuple[int, int]], list[float]],
    expected: list[float],
    precision: str,
    change: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    assert len(continued[change]) == LAST - SAVED
    assert continued[change] == pytest.approx(expected[SAVED:], abs=TOLERANCES[precision])


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_was_read_is_saved_again_bit_by_bit(
    saved: Path, continued: object, change: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    before, after = (
        tensors(saved / folder(change[0])),
        tensors(saved / f"again-{folder(change[0])}-{folder(change[1])}"),
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_a_checkpoint_has_whole_tensors_in_fp32_by_name_and_nothing_that_is_frozen(
    saved: Path, world: tuple[int, int]
) -> None:
    found, reference = tensors(saved / folder(world)), tensors(saved / folder((1, 0)))
    trained = {name for name in found if "/" not in name}
    assert trained == {name for name in found if name.startswith(("bind_network.", "fusion.gates")) and "/" not in name}
    assert found.keys() == trained | {f"{name}/{moment}" for name in trained for moment in ("exp_avg", "exp_avg_sq")}
    assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in reference.items()}
    assert all(tensor.dtype == torch.float32 for tensor in found.values())


def tensors(root: Path) -> dict[str, Tensor]:
    return {name: t for path in sorted(root.rglob("*.safetensors")) for name, t in load_file(path).items()}


def folder(world: tuple[int, int]) -> str:
    return f"{world[0]}-ranks-zero-{world[1]}"


def save_all(root: Path, precision: str) -> None:
    for zero_stage in range(4):
        rig = engines.rig(zero_stage=zero_stage, dtype=DTYPES[precision])
        rig.train(1, SAVED)
        engines.save(rig, root / folder((rig.engine.world_size, zero_stage)), SAVED)


def continue_all(root: Path, precision: str) -> dict[tuple[tuple[int, int], tuple[int, int]], list[float]]:
    found = {}
    for before, after in CHANGES:
        rig = engines.rig(zero_stage=after[1], dtype=DTYPES[precision])
        if rig.engine.world_size != after[0]:
            continue
        opened = engines.load(rig, root / folder(before))
        assert opened is not None and opened.state.updates == rig.engine.updates == SAVED
        engines.save(rig, root / f"again-{folder(before)}-{folder(after)}", SAVED)
        found[before, after] = rig.train(SAVED + 1, LAST)
    return found


def train_through(precision: str) -> list[float]:
    return engines.rig(dtype=DTYPES[precision]).train(1, LAST)
