"""A rank that hangs ends by itself, and says where it stood."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from ibllm_core.contract.run_spec import TrainSpec
from tests.workers.train import gang, runs, tiny
from workers.train.watchdog import LOADING_SECONDS, Watchdog

PATIENCE = 4.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "world").mkdir()
    tiny.furnish(tiny.local(tmp_path / "world"), tmp_path)
    return tmp_path / "world"


def endless() -> TrainSpec:
    return tiny.small(hyperparameters={"n_epochs": 1000}, resources={"workers": 2}, validation_dataset=None)


def test_where_a_rank_is_frozen_the_others_say_where_they_wait_and_end(root: Path) -> None:
    running = gang.Gang(runs.train_rank, root, endless(), None, {"patience": PATIENCE}, ranks=2)
    running.wait_for("step 50 of")
    running.signal(signal.SIGSTOP, rank=1)
    ended = running.join(grace=0.1)
    assert ended.codes == [1, -signal.SIGKILL]
    assert "Timeout (0:00:04)!" in ended.output[0]
    assert "distributed_c10d.py" in ended.output[0] and "in train\n" in ended.output[0]


def test_a_rank_that_holds_pythons_lock_says_where_and_ends(root: Path) -> None:
    hang = runs.Kill(moment="never again", step=5, rank=1)
    ended = gang.Gang(runs.train_rank, root, endless(), hang, {"patience": PATIENCE}, ranks=2).join()
    assert ended.codes == [1, 1]
    waiting, hanging = ended.output
    assert "distributed_c10d.py" in waiting and "in train\n" in waiting
    assert "runs.py" in hanging and "in taken\n" in hanging


@pytest.mark.parametrize(("steps", "limit"), [([], 600.0), ([1.0] * 9, 60.0), ([1.0, 20.0, 30.0], 100.0)])
def test_a_step_may_take_sixty_seconds_or_five_of_the_usual_and_a_first_one_more(
    monkeypatch: pytest.MonkeyPatch, steps: list[float], limit: float
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Watchdog() as watchdog:
        watchdog.step()
        for seconds in steps:
            now += seconds
            watchdog.step()
        assert watchdog.limit == limit


def test_time_that_is_allowed_is_no_steps_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Watchdog() as watchdog:
        watchdog.step()
        watchdog.allow(LOADING_SECONDS)
        now += 1000.0
        watchdog.step()
        now += 20.0
        watchdog.step()
        assert watchdog.limit == 100.0


def test_after_the_work_it_does_not_ring() -> None:
    assert gang.run(outlive_the_watchdog) == [True]


def outlive_the_watchdog() -> bool:
    with Watchdog(min_seconds=0.05) as watchdog:
        watchdog.allow(0.2)
    started = time.monotonic()
    while time.monotonic() < started + 0.4:
        pass
    return True
