"""Steps whose gradients are not finite: skipped and counted; three in a row name the rows that are at fault."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.errors import InvalidSpecError
from tests.workers.train import runs, tiny
from workers.train.health import DivergedError, HealthReader

STEPS = 9  # of one epoch, so that a bad row spoils one of them


def spec(save_every: int | None, **resources: int) -> TrainSpec:
    policy = {"every_seconds": 1e6, "every_steps": save_every}
    settings = {"n_epochs": 1, "rows_per_step": 2}
    return tiny.small(hyperparameters=settings, checkpoints=policy, resources=resources, validation_dataset=None)


@pytest.fixture(scope="module")
def media_of(tmp_path_factory: pytest.TempPathFactory) -> dict[int, int]:
    """A sample with media of each step."""
    root = tmp_path_factory.mktemp("health") / "good"
    furnish(root)
    assert runs.finish(root, spec(None))["steps"] == STEPS
    return {line["step"]: next(s for row in line["rows"] for s in row if s % 5) for line in runs.read(root)}


def furnish(root: Path, *bad: int) -> Path:
    root.mkdir()
    tiny.furnish(tiny.local(root), root, bad_features=bad)
    return root


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_bad_row_costs_its_step_and_no_other(media_of: dict[int, int], tmp_path: Path, ranks: int) -> None:
    root = furnish(tmp_path / "world", media_of[4])
    outputs = runs.finish(root, spec(3, workers=ranks), ranks=ranks)
    assert outputs["skipped_steps"] == 1
    skipped = {
        e.step: e.metrics["train/skipped_steps"] for e in tiny.logged(root) if "train/skipped_steps" in e.metrics
    }
    assert skipped == {step: float(step >= 4) for step in skipped} and len(skipped) == STEPS
    assert {step for step, loss in tiny.losses(root).items() if not math.isfinite(loss)} == {4}
    assert all(tensor.isfinite().all() for tensor in tiny.weights(root).values())
    newest = tiny.checkpoints(root)[-1]
    state = json.loads((root / f"jobs/j/stage1/checkpoints/step-{newest:08d}/state.json").read_bytes())
    assert (state["updates"], state["skipped_steps"], state["skipped_in_a_row"]) == (newest - 1, 1, 0)


@pytest.mark.parametrize(
    ("save_every", "ranks", "tried"),
    [
        (5, 1, "before and after going back to a checkpoint"),
        (7, 2, "before and after going back to a checkpoint"),  # saved between the second and the third
        (None, 1, "and there is no checkpoint to go back to"),
    ],
)
def test_three_bad_steps_in_a_row_end_the_run_with_their_rows(
    media_of: dict[int, int], tmp_path: Path, save_every: int | None, ranks: int, tried: str
) -> None:
    bad = [media_of[step] for step in (2, 6, 7, 8)]  # the first is skipped
    root = furnish(tmp_path / "world", *bad)
    ended = runs.train(root, spec(save_every, workers=ranks), ranks=ranks)
    for result in ended.results:
        error = result["error"]
        assert isinstance(error, InvalidSpecError)
        assert error.fields["step"] == 8
        assert sorted(error.fields["samples"]) == sorted(f"row {sample + 1} of datasets.0" for sample in bad[1:])
        assert f"the gradients of steps 6 to 8 were not finite, {tried}" in error.message
        assert "remove or mend these rows" in error.message
    if save_every:
        assert f"back to step {save_every}" in ended.output[0]
        assert runs.steps(root) == [*range(1, 9), *range(save_every + 1, 9)]


def test_a_killed_run_counts_on(media_of: dict[int, int], tmp_path: Path) -> None:
    root = furnish(tmp_path / "world", media_of[2], media_of[6])
    kill = runs.Kill(moment="after a step", step=8)
    runs.train(root, runs.attempt(spec(4), 1), kill=kill)
    assert runs.finish(root, runs.attempt(spec(4), 2))["skipped_steps"] == 2


def test_a_reader_goes_on_from_a_streak() -> None:
    reader = HealthReader(skipped=5, in_a_row=2)
    assert (reader.skipped, reader.in_a_row) == (5, 2)
    reader.see(7, torch.tensor([5.0, 0.0, 1.0]))
    assert (reader.skipped, reader.in_a_row) == (5, 0)
    with pytest.raises(DivergedError) as caught:
        reader.see(10, torch.tensor([8.0, 3.0, float("nan")]))
    assert caught.value.step == 10
