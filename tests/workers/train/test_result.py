"""Which step becomes a stage's result, and what the service hears of checkpoints on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ibllm_core.contract import layout
from ibllm_core.contract.run_spec import TrainSpec
from tests.workers.train import gang, runs, tiny
from workers.adapter_source import fetch_adapter
from workers.train.checkpoint.listing import Checkpoints
from workers.train.console import Console
from workers.train.loop import Trained
from workers.train.result import Result, choose_result

ADAPTER = "models/x"


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("result") / "world"
    root.mkdir()
    tiny.furnish(tiny.local(root), root)
    return root


def forgetful(ranks: int = 1, zero_stage: int = 0, **policy: Any) -> TrainSpec:
    """A run whose validation loss rises again soon."""
    return tiny.small(
        hyperparameters={"n_epochs": 8, "learning_rate": 3e-2},
        checkpoints={"every_steps": 3, "keep_last": 1, **policy},
        evaluation={"every_steps": 4},
        resources={"workers": ranks, "zero_stage": zero_stage},
    )


def validations(root: Path) -> dict[int, float]:
    return {word["step"]: word["valid_loss"] for word in runs.told(root) if "valid_loss" in word}


@pytest.mark.parametrize(("ranks", "zero_stage"), [(1, 0), (2, 3)])
def test_the_best_checkpoint_becomes_the_result_bit_by_bit(furnished: Path, ranks: int, zero_stage: int) -> None:
    root = runs.twin(furnished, f"best-{ranks}-{zero_stage}")
    outputs = runs.finish(root, forgetful(ranks, zero_stage, result="best"), ranks=ranks)
    losses = validations(root)
    best = min(losses, key=lambda step: losses[step])
    assert sorted(losses) == list(range(4, 41, 4)) and best < 40
    assert (outputs["step"], outputs["valid_loss"], outputs["steps"]) == (best, losses[best], 40)
    assert tiny.checkpoints(root) == [best, 40]
    store = tiny.local(root)
    made = fetch_adapter(store, layout.checkpoint("j", "stage1", best), root / "other-cache")
    assert (made / "adapter.safetensors").read_bytes() == (root / ADAPTER / "adapter.safetensors").read_bytes()
    assert store.manifest(ADAPTER)["step"] == best


def test_the_last_step_is_the_result_unless_told(furnished: Path) -> None:
    root = runs.twin(furnished, "last")
    outputs = runs.finish(root, forgetful())
    assert (outputs["step"], outputs["steps"]) == (40, 40)
    assert outputs["valid_loss"] == validations(root)[40]


def test_a_run_that_died_before_it_published_its_best_does_so_in_its_next_attempt(furnished: Path) -> None:
    whole, root = runs.twin(furnished, "whole"), runs.twin(furnished, "died")
    spec = forgetful(result="best")
    expected = runs.finish(whole, spec)
    runs.train(root, spec, kill=runs.Kill(moment="after a manifest", step=40))
    outputs = runs.finish(root, runs.attempt(spec, 2))
    names = ("step", "valid_loss", "adapter_sha256")
    assert [outputs[name] for name in names] == [expected[name] for name in names]


def test_every_checkpoint_is_told_with_what_was_measured_and_which_are_left(furnished: Path) -> None:
    root = runs.twin(furnished, "told")
    runs.finish(root, forgetful(result="best"))
    reports = [word for word in runs.told(root) if word["kind"] == "checkpoint"]
    losses = validations(root)
    for report in reports:
        step, metrics = report["step"], report["metrics"]
        assert report["prefix"] == layout.checkpoint("j", "stage1", step)
        assert step in report["kept"] and metrics["step"] == step
        assert metrics.keys() >= {"train_loss", "learning_rate", "gate_abs_mean", "gate_abs_max", "gate_open_share"}
        assert metrics.get("valid_loss") == metrics.get("full_valid_loss") == losses.get(step)
    logged = tiny.losses(root)
    assert all(report["metrics"]["train_loss"] == logged[report["step"]] for report in reports)
    assert set(losses) <= {report["step"] for report in reports}
    assert sorted(reports[-1]["kept"]) == tiny.checkpoints(root)


def test_between_two_logged_steps_a_checkpoint_has_the_mean_loss_since_the_first(furnished: Path) -> None:
    root = runs.twin(furnished, "between")
    policy = {"every_steps": 7, "keep_last": 100}
    runs.finish(root, tiny.small(hyperparameters={"n_epochs": 17}, checkpoints=policy, validation_dataset=None))
    odd = next(word for word in runs.told(root) if word["kind"] == "checkpoint" and word["step"] == 7)
    state = json.loads((root / odd["prefix"] / "state.json").read_bytes())
    assert state["window_steps"] == 1 and odd["metrics"]["train_loss"] == state["window_loss"]


def test_a_checkpoint_that_nobody_was_told_of_is_told_by_who_goes_on_from_it(furnished: Path) -> None:
    root, spec = runs.twin(furnished, "untold"), forgetful(keep_best=0)
    runs.train(root, spec, kill=runs.Kill(moment="after a manifest", step=6))
    (newest,) = tiny.checkpoints(root)[-1:]
    before = runs.told(root)
    assert newest not in [word["step"] for word in before if word["kind"] == "checkpoint"]
    runs.finish(root, runs.attempt(spec, 2))
    first = next(word for word in runs.told(root)[len(before) :] if word["kind"] == "checkpoint")
    assert first["step"] == newest and newest in first["kept"] and first["metrics"]["train_loss"] > 0


def test_where_no_loss_is_finite_the_last_step_is_taken_and_that_is_said(tmp_path: Path) -> None:
    assert gang.run(choose_of_none, tmp_path) == [(Result(step=3, validation_loss=None), 1)]


class _Listener(Console):
    def __init__(self) -> None:
        super().__init__(rank=0)
        self.said: list[str] = []

    def event(self, message: str, **_about: Any) -> None:
        self.said.append(message)


def choose_of_none(root: Path) -> tuple[Result, int]:
    store, listener = tiny.local(root), _Listener()
    store.put_json(layout.manifest(layout.checkpoint("j", "stage1", 2)), {"validation_loss": float("nan"), "files": {}})
    checkpoints = Checkpoints(store, "j", "stage1")
    spec = tiny.small(checkpoints={"result": "best"})
    result = choose_result(spec, checkpoints, Trained(step=3), lambda choose: None, listener)
    return result, sum("no checkpoint with a finite validation loss" in message for message in listener.said)
