"""Loss curves that stand here: a change of the numbers is noticed, and is either meant or a defect."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibllm_core.contract.job_spec import TrainingStage
from tests.workers.train import runs, tiny

# fmt: off
GOLDEN: dict[TrainingStage, list[float]] = {
    "stage1": [
        4.1308, 4.1699, 4.1278, 4.1236, 4.1432, 4.0926, 4.1013, 4.0151, 4.0724, 4.0433,
        4.0426, 4.0101, 4.0166, 3.9929, 4.1330, 4.0237, 4.0172, 4.0242, 3.9801, 3.9703,
    ],
    "stage2": [
        3.9672, 3.9340, 3.9780, 3.9681, 3.8677, 3.9397, 3.9516, 3.9198, 3.9410, 3.9496,
        3.9631, 3.9221, 3.9329, 3.9023, 3.9790, 3.9324, 3.9255, 3.9496, 3.9313, 3.8839,
    ],
}
# fmt: on


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.furnish(tmp_path_factory.mktemp("golden") / "world")


@pytest.mark.parametrize("stage", GOLDEN)
def test_the_losses_are_those_of_before(furnished: Path, stage: TrainingStage) -> None:
    runs.finish(furnished, tiny.small(stage, resources={"precision": "fp32"}))
    assert [round(loss, 4) for loss in tiny.losses(furnished, stage).values()] == pytest.approx(GOLDEN[stage], abs=1e-4)
