"""What is said of a training while it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ibllm_core.contract.run_spec import CheckpointReport, Progress
from tests.workers.train.world import spec
from workers.tracking.history import History
from workers.train import telling
from workers.train.loop import Trained
from workers.train.step_metrics import step_metrics
from workers.train.telemetry import LoggedStep
from workers.train.telling import Telling

MEASURED = {
    "train/loss": 2.314,
    "train/lr": 1e-4,
    "train/tokens_per_second": 900.0,
    "train/grad_norm": 1.0,
    "gate/abs_mean": 0.1,
    "gate/abs_max": 0.2,
    "gate/open_share": 0.5,
    "gate/layer_00/abs_mean": 0.1,
}
TOLD = {
    "train_loss": 2.314,
    "learning_rate": 1e-4,
    "gate_abs_mean": 0.1,
    "gate_abs_max": 0.2,
    "gate_open_share": 0.5,
}


class Listener:
    """Somebody who hears."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.heard: list[tuple[str, Mapping[str, object]]] = []

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress.step)

    def metrics(self, message: str, data: Mapping[str, object]) -> None:
        self.heard.append((message, data))

    def event(self, message: str, **about: Any) -> None:
        raise AssertionError(message)

    def checkpoint(self, report: CheckpointReport) -> None:
        raise AssertionError(report)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def telling_to(listener: Listener, folder: Path, *, is_first: bool = True) -> Telling:
    told = Telling(spec(), listener, "node")
    if is_first:
        told.history = History(folder, spec())
    return told


def logged(step: int, *, is_evaluated: bool = False, **measured: float) -> LoggedStep:
    metrics = {**MEASURED, **measured}
    return LoggedStep(step=step, total_steps=400, metrics=metrics, seconds_left=1.0, is_evaluated=is_evaluated)


def test_a_logged_step_has_a_message_and_its_metrics_by_their_names(listener: Listener, tmp_path: Path) -> None:
    telling_to(listener, tmp_path).logged(logged(120))
    data = {"step": 120, **TOLD, "total_steps": 400, "tokens_per_second": 900.0}
    assert listener.heard == [("Step 120/400: training loss=2.31", data)]


def test_every_step_is_a_heartbeat_and_few_are_events_of_which_the_last_is_one(
    listener: Listener, tmp_path: Path
) -> None:
    told = telling_to(listener, tmp_path)
    for step in (1, 2, 3, 399, 400):
        told.logged(logged(step))
    assert listener.steps == [1, 2, 3, 399, 400]
    assert [data["step"] for _, data in listener.heard] == [1, 400]


def test_events_come_again_after_a_while(listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "METRICS_SECONDS", 0.0)
    told = telling_to(listener, tmp_path)
    for step in (1, 2):
        told.logged(logged(step))
    assert [data["step"] for _, data in listener.heard] == [1, 2]


def test_a_validated_step_is_one_event_with_all_that_is_known_of_it(listener: Listener, tmp_path: Path) -> None:
    told = telling_to(listener, tmp_path)
    told.logged(logged(400, is_evaluated=True))
    found = {"eval/loss": 2.5, "eval/loss_shuffled": 2.75}
    told.evaluated(Trained(step=400, total_steps=400, measured={**MEASURED, **found}), found)
    ((message, data),) = listener.heard
    assert message == "stage1, step 400: eval/loss 2.5000, eval/loss_shuffled 2.7500"
    assert data == {"step": 400, **TOLD, "valid_loss": 2.5, "total_steps": 400, "tokens_per_second": 900.0}


def test_the_state_before_training_is_no_event(listener: Listener, tmp_path: Path) -> None:
    told = telling_to(listener, tmp_path)
    told.logged(LoggedStep(step=0, total_steps=400, metrics={"gate/abs_mean": 0.0}, seconds_left=math.nan))
    assert (listener.steps, listener.heard) == ([0], [])


def test_other_ranks_only_say_that_they_live(listener: Listener, tmp_path: Path) -> None:
    told = telling_to(listener, tmp_path, is_first=False)
    told.logged(logged(400))
    told.evaluated(Trained(step=400, measured={"eval/loss": 2.5}), {"eval/loss": 2.5})
    assert (listener.steps, listener.heard) == ([400], [])


def test_what_json_has_no_number_for_is_left_out() -> None:
    measured = {"train/loss": math.nan, "eval/loss": math.inf, "gate/abs_mean": 0.5}
    assert step_metrics(7, measured) == {"step": 7, "gate_abs_mean": 0.5}
