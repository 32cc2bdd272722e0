"""The step under real DeepSpeed on real processes: world size and ZeRO stage change nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for
from tests.workers.train_tiny import CASES
from workers.train.engine import parameter_groups, schedule


def train(tmp_path: Path, *, ranks: int, zero_stage: int) -> dict[str, Any]:
    out = tmp_path / f"{ranks}-{zero_stage}.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, "--module", "tests.workers.train_tiny", str(zero_stage), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(tmp_path_factory.mktemp("one"), ranks=1, zero_stage=1)


@pytest.fixture(scope="module", params=[1, 2])
def two_ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(tmp_path_factory.mktemp("two"), ranks=2, zero_stage=request.param)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_as_one(one_rank: dict[str, Any], two_ranks: dict[str, Any], case: str) -> None:
    one, two = one_rank[case], two_ranks[case]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert two["gates"] == pytest.approx(one["gates"], abs=1e-4)
    assert two["drift"] == pytest.approx(one["drift"], rel=1e-3)
    assert two["moments"] == one["moments"]


@pytest.mark.parametrize("case", CASES)
def test_training_learns_and_moves_every_group_of_its_stage(one_rank: dict[str, Any], case: str) -> None:
    result = one_rank[case]
    assert result["losses"][-1] < result["losses"][0] - 0.02
    groups = {"gates", "lora", "bias", "norm"} if case == "stage2" else {"bind_network"}
    groups |= {"gates"} if case == "token_add" else set()
    groups |= {"gates", "queries"} if case in ("value_gate", "adapter_prefix") else set()
    groups |= {"queries"} if case == "concat" else set()
    assert result["drift"].keys() == groups
    assert all(drift > 0.01 for drift in result["drift"].values())


@pytest.mark.parametrize("case", ["token_add", "value_gate", "adapter_prefix"])
def test_training_opens_the_gates(one_rank: dict[str, Any], case: str) -> None:
    assert one_rank[case]["gates"][0] == 0
    assert one_rank[case]["gates"][-1] > 0.01


def test_gates_have_their_own_rate_and_no_decay(model: ImageBindLLM) -> None:
    freeze_for("stage1", model)
    settings = Hyperparameters(learning_rate=1e-4, gate_learning_rate=1e-2)
    others, gates = parameter_groups(model, settings)
    assert gates["params"] == [model.fusion.gates]
    assert (gates["lr"], gates["weight_decay"]) == (1e-2, 0.0)
    assert others["lr"] == 1e-4 and "weight_decay" not in others
    model.fusion.gates.requires_grad_(False)
    assert len(parameter_groups(model, settings)) == 1


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001
