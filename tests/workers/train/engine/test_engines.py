"""Engines compute the same, however the state is spread and the rows are cut into micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ibllm_core.contract import metrics as names
from ibllm_core.contract.job_spec import Hyperparameters, Offload
from ibllm_core.evaluation.gates import gate_metrics
from ibllm_core.model.stage_proof import hash_frozen_groups, prove
from ibllm_core.model.stages import trained_parameters
from tests.workers.train import engines, gang
from workers.train.checkpoint.parts import gather_weights

CASES: dict[str, dict[str, Any]] = {
    "token_add": {"steps": 12},
    "value_gate": {"steps": 12, "fusion": "value_gate"},
    "adapter_prefix": {"steps": 12, "fusion": {"kind": "adapter_prefix", "prompts": 3}},
    "concat": {"steps": 12, "fusion": {"kind": "concat", "tokens": 2}},
    "stage2": {"steps": 12, "stage": "stage2"},
}
# Rows that no number of ranks divides, in micro-batches of one row; an epoch ends with a short batch.
ODD = Hyperparameters(n_epochs=2, row_tokens=28, rows_per_step=5, learning_rate=5e-3, gate_learning_rate=2e-2)
SHAPES: dict[str, dict[str, Any]] = {
    "odd rows": {"settings": ODD},
    "micro batches": {"settings": ODD, "micro_rows": 1},
    "one row a step": {"settings": ODD.model_copy(update={"rows_per_step": 1})},
}
OFFLOADS: list[tuple[int, Offload]] = [(1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "parameters")]
WORLDS = [(ranks, zero_stage) for ranks in (1, 2) for zero_stage in range(4)]
FP32, BF16 = 2e-6, 1e-3  # of losses near 4; the largest differences seen are 7e-7 and 2.5e-4


@pytest.fixture(scope="module")
def trained() -> dict[tuple[int, int], dict[str, Any]]:
    """What came of each case, by ranks and ZeRO stage."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for ranks in (1, 2):
        first, *_ = gang.run(train_all, ranks=ranks)
        found |= {(ranks, zero_stage): cases for zero_stage, cases in first.items()}
    return found


@pytest.mark.parametrize("case", [*CASES, *SHAPES])
@pytest.mark.parametrize("world", WORLDS[1:])
def test_worlds_train_alike(trained: dict[tuple[int, int], Any], case: str, world: tuple[int, int]) -> None:
    expected, found = trained[1, 0][case], trained[world][case]
    assert found["losses"] == pytest.approx(expected["losses"], abs=FP32)
    assert found["gates"] == pytest.approx(expected["gates"], abs=1e-4)
    assert found["drift"] == pytest.approx(expected["drift"], rel=1e-3)


@pytest.mark.parametrize("world", WORLDS[1:])
def test_worlds_train_alike_in_bf16(trained: dict[tuple[int, int], Any], world: tuple[int, int]) -> None:
    expected, found = trained[1, 0]["bf16"], trained[world]["bf16"]
    assert found["losses"] == pytest.approx(expected["losses"], abs=BF16)


@pytest.mark.parametrize("case", CASES)
def test_training_learns_and_moves_every_group_of_its_stage(trained: dict[tuple[int, int], Any], case: str) -> None:
    result = trained[1, 0][case]
    assert result["losses"][-1] < result["losses"][0] - 0.02
    groups = {"gates", "lora", "bias", "norm"} if case == "stage2" else {"bind_network"}
    groups |= {"gates"} if case == "token_add" else set()
    groups |= {"gates", "queries"} if case in ("value_gate", "adapter_prefix") else set()
    groups |= {"queries"} if case == "concat" else set()
    assert result["drift"].keys() == groups
    assert all(drift > 0.01 for drift in result["drift"].values())


@pytest.mark.parametrize("case", ["token_add", "value_gate", "adapter_prefix"])
def test_training_opens_the_gates(trained: dict[tuple[int, int], Any], case: str) -> None:
    before, after = trained[1, 0][case]["gates"]
    assert before == 0
    assert after > 0.01


@pytest.mark.parametrize("ranks", [1, 2])
def test_state_in_the_hosts_memory_trains_alike_and_is_saved_and_read(tmp_path: Path, ranks: int) -> None:
    expected, *found = gang.run(train_offloaded, tmp_path, ranks=ranks)[0]
    assert len(found) == len(OFFLOADS)
    for losses in found:
        assert losses == pytest.approx(expected, abs=FP32)


def train_offloaded(root: Path) -> list[list[float]]:
    """Losses at ZeRO 0, and with each kind of offload; those go on in another engine half-way."""
    found = [engines.rig().train(1, 8)]
    for zero_stage, offload in OFFLOADS:
        first, second = (engines.rig(zero_stage=zero_stage, offload=offload) for _ in range(2))
        losses = first.train(1, 4)
        engines.save(first, root / f"{zero_stage}-{offload}", 4)
        engines.load(second, root / f"{zero_stage}-{offload}")
        found.append(losses + second.train(5, 8))
    return found


def train_all() -> dict[int, dict[str, Any]]:
    """Every case at every ZeRO stage."""
    cases = {**CASES, **SHAPES, "bf16": {"dtype": torch.bfloat16, "micro_rows": 1}}
    return {zero: {name: train_case(zero_stage=zero, **case) for name, case in cases.items()} for zero in range(4)}


def train_case(steps: int = 6, **case: Any) -> dict[str, Any]:
    """Losses of the steps, gates before and after, how far each group moved; no frozen weight may."""
    rig = engines.rig(**case)
    gates, losses = [gates_of(rig)], rig.train(1, steps)
    weights = gather_weights(rig.engine, dist.new_group(backend="gloo"))
    after = hash_frozen_groups(rig.model, rig.engine.gathered)
    with rig.engine.gathered([parameter for _, parameter in trained_parameters(rig.model)]):
        trained = {name: parameter.detach().float() for name, parameter in trained_parameters(rig.model)}
        assert all(torch.equal(weights[name].to(rig.dtype).float(), trained[name]) for name in weights)
    proof = prove(rig.before, after, weights or rig.before.weights)
    drift = {group: moved.drift for group, moved in proof.trained.items()}
    return {"losses": losses, "gates": [*gates, gates_of(rig)], "drift": drift}


def gates_of(rig: engines.Rig) -> float | None:
    with rig.engine.gathered([rig.model.fusion.gates]):
        magnitudes = rig.model.gate_magnitudes()
        return None if magnitudes is None else gate_metrics(magnitudes)[names.GATE_ABS_MEAN]
