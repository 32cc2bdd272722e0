"""The step under real DeepSpeed on real processes: world size and ZeRO stage change nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.train.engine import schedule


def train(tmp_path: Path, *, ranks: int, zero_stage: int) -> dict[str, list[float]]:
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
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return train(tmp_path_factory.mktemp("one"), ranks=1, zero_stage=1)


@pytest.mark.parametrize("zero_stage", [1, 2])
def test_two_ranks_train_as_one(tmp_path: Path, one_rank: dict[str, list[float]], zero_stage: int) -> None:
    two = train(tmp_path, ranks=2, zero_stage=zero_stage)
    assert two["losses"] == pytest.approx(one_rank["losses"], abs=1e-4)
    assert two["gates"] == pytest.approx(one_rank["gates"], abs=1e-4)
    assert two["moments"] == one_rank["moments"]


def test_training_learns_and_opens_the_gates(one_rank: dict[str, list[float]]) -> None:
    assert one_rank["gates"][0] == 0
    assert one_rank["gates"][-1] > 0.01
    assert one_rank["losses"][-1] < one_rank["losses"][0] - 0.05


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001
