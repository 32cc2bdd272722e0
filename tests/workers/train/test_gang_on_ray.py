"""A gang on a real Ray with a real object store: what a driver makes of a run, and of a worker's death."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ibllm_core.contract.states import TerminationReason
from tests.workers.train import cluster, runs, tiny
from tests.workers.train.cluster import World

# Many small micro-batches, so that steps are long enough to be interrupted.
LONG: dict[str, Any] = {
    "hyperparameters": {"n_epochs": 100, "max_steps": 60, "rows_per_step": 16},
    "resources": {"workers": 2, "micro_batch_tokens": 28},
    "checkpoints": {"every_steps": 5},
    "validation_dataset": None,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with cluster.world(tmp_path_factory.mktemp("gang"), 1, 1) as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder as a store with the same base and data, for a run without Ray."""
    tiny.furnish(tiny.local(tmp_path), tmp_path)
    return tmp_path


def test_two_workers_on_two_nodes_train_as_processes_without_ray(world: World, plain: Path) -> None:
    attempt = world.start("whole", resources={"workers": 2})
    outcome = attempt.outcome()
    assert outcome.reason is TerminationReason.SUCCEEDED
    assert (outcome.outputs["world_size"], outcome.outputs["zero_stage"], outcome.outputs["steps"]) == (2, 0, 20)
    assert world.store.manifest("models/whole")["header"]["job_id"] == "whole"
    assert list(world.ear.checkpoints[-1].kept) == world.checkpoints("whole")
    runs.finish(plain, tiny.small(resources={"workers": 2}), ranks=2)
    assert_equal(world.weights("whole"), tiny.weights(plain))
    assert world.losses("whole") == tiny.losses(plain)


def test_a_killed_rank_costs_seconds_and_no_step(world: World, plain: Path) -> None:
    attempt = world.start("killed", **LONG)
    attempt.until(lambda: world.checkpoints("killed"))
    os.kill(attempt.gangs[-1], signal.SIGKILL)
    assert attempt.outcome().reason is TerminationReason.SUCCEEDED
    assert len(attempt.gangs) == 2
    assert any("goes on after a failure: worker" in said and "was lost" in said for said in world.ear.messages)
    assert any("goes on from step" in said for said in world.ear.messages)
    runs.finish(plain, tiny.small(**LONG), ranks=2)
    assert_equal(world.weights("killed"), tiny.weights(plain))
    assert len(world.losses("killed")) > 10


def test_sigterm_saves_the_very_step_and_the_next_attempt_goes_on_from_it(world: World) -> None:
    attempt = world.start("stopped", **LONG)
    attempt.until(lambda: world.checkpoints("stopped"))
    attempt.process.send_signal(signal.SIGTERM)
    outcome = attempt.outcome(30)
    assert outcome.reason is TerminationReason.PREEMPTED
    step = world.checkpoints("stopped")[-1]
    assert outcome.message == f"stopped after step {step} of 60, which is saved"
    assert outcome.outputs["steps"] == step
    again = world.start("stopped", attempt_number=2, **LONG)
    assert again.outcome().reason is TerminationReason.SUCCEEDED
    assert f"stage1 goes on from step {step}" in world.ear.messages
    assert_equal(world.weights("stopped"), world.weights("killed"))


def test_a_wrong_spec_ends_with_its_reason_before_workers_are_asked_for(world: World) -> None:
    attempt = world.start("wrong", resources={"workers": 2}, hyperparameters={"rows_per_step": 1})
    outcome = attempt.outcome()
    assert outcome.reason is TerminationReason.USER_ERROR
    assert "hyperparameters.rows_per_step: it is 1, so that 1 of 2 workers would idle" in outcome.message
    assert "TrainController" not in attempt.log and "after a failure" not in " ".join(world.ear.messages)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
