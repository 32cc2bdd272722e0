"""What a training survives, on a real Ray with a real object store; minutes long, run by ``make faults``."""

from __future__ import annotations

import itertools
import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ibllm_core.contract.states import TerminationReason
from tests.workers.train import cluster, runs, tiny
from tests.workers.train.cluster import Attempt, World, ranks

pytestmark = pytest.mark.skipif(not os.environ.get("IBLLM_FAULTS"), reason="set IBLLM_FAULTS=1: takes minutes")
OUTAGE_SECONDS = float(os.environ.get("IBLLM_OUTAGE_SECONDS", "60"))
LONG: dict[str, Any] = {
    "hyperparameters": {"n_epochs": 1000, "max_steps": 150, "rows_per_step": 16},
    "resources": {"workers": 2, "micro_batch_tokens": 28},
    "checkpoints": {"every_steps": 10},
    "validation_dataset": None,
}


def longer(steps: int, **resources: Any) -> dict[str, Any]:
    return {
        **LONG,
        "hyperparameters": {**LONG["hyperparameters"], "max_steps": steps},
        "resources": {**LONG["resources"], **resources},
    }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One test, one cluster: a head with room for the driver and one worker, and a node for the other."""
    with cluster.world(tmp_path, 1, 1) as made:
        yield made


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[int, float]]:
    """The losses of so many steps, without Ray and without trouble."""

    def losses(steps: int) -> dict[int, float]:
        root = tmp_path_factory.mktemp("plain")
        tiny.furnish(tiny.local(root), root)
        runs.finish(root, tiny.small(**longer(steps)), ranks=2)
        return tiny.losses(root)

    return losses


Undisturbed = Callable[[int], dict[int, float]]


def test_a_lost_node_makes_the_gang_smaller_and_a_new_one_larger(world: World, undisturbed: Undisturbed) -> None:
    attempt = world.start("elastic", **longer(400, min_workers=1))
    attempt.until(lambda: world.checkpoints("elastic"))
    assert sizes(attempt) == [2]
    lost = time.monotonic()
    world.cluster.remove_node(other_node(world), allow_graceful=False)
    attempt.until(lambda: len(attempt.gangs) == 2)
    print(f"node lost -> smaller gang {time.monotonic() - lost:.1f} s")
    world.cluster.add_node(num_cpus=1, object_store_memory=cluster.NODE_BYTES)
    joined = time.monotonic()
    attempt.until(lambda: len(attempt.gangs) == 3)
    print(f"node joined -> larger gang {time.monotonic() - joined:.1f} s")
    outcome = attempt.outcome(240)
    assert outcome.reason is TerminationReason.SUCCEEDED
    assert sizes(attempt) == [2, 1, 2] and outcome.outputs["world_size"] == 2
    assert "stage1 goes on with 1 of 2 workers" in world.ear.messages
    assert "stage1 goes on with 2 of 2 workers" in world.ear.messages
    assert_close(world.losses("elastic"), undisturbed(400))


def test_without_elastic_wish_a_run_waits_for_its_whole_gang(world: World, undisturbed: Undisturbed) -> None:
    attempt = world.start("rigid", **longer(150))
    attempt.until(lambda: world.checkpoints("rigid"))
    world.cluster.remove_node(other_node(world), allow_graceful=False)
    attempt.until(lambda: any(said.phase == "restarting" for _, said in world.ear.progress))
    heard = len(world.ear.progress)
    attempt.until(lambda: len(world.ear.progress) > heard + 10)  # it says that it lives
    assert len(attempt.gangs) == 1
    world.cluster.add_node(num_cpus=1, object_store_memory=cluster.NODE_BYTES)
    assert attempt.outcome(240).reason is TerminationReason.SUCCEEDED
    assert sizes(attempt) == [2, 2]
    assert world.losses("rigid") == undisturbed(150)


def test_a_frozen_rank_is_noticed_and_all_other_stacks_are_in_the_log(world: World, undisturbed: Undisturbed) -> None:
    attempt = world.start("frozen", **longer(150))
    attempt.until(lambda: world.checkpoints("frozen"))
    frozen = next(process for process in ranks() if process.pid != attempt.gangs[-1])
    frozen.suspend()
    at = time.monotonic()
    attempt.until(lambda: len(attempt.gangs) == 2)
    print(f"rank frozen -> next gang {time.monotonic() - at:.1f} s, of which its patience is 10 s")
    assert attempt.outcome(240).reason is TerminationReason.SUCCEEDED
    assert re.search(r"Timeout \(0:00:1\d", attempt.log) and "in train_step" in attempt.log
    assert any("worker 1 had stopped to answer" in said for said in world.ear.messages)
    assert not frozen.is_running()
    assert world.losses("frozen") == undisturbed(150)


def test_a_store_that_is_away_costs_no_step_and_no_point(world: World, undisturbed: Undisturbed) -> None:
    attempt = world.start("s3", **longer(600))
    attempt.until(lambda: world.checkpoints("s3"))
    with world.store_away():
        began, first = time.monotonic(), world.ear.step
        waited(OUTAGE_SECONDS)
        during = world.ear.step - first
    rate_away = during / OUTAGE_SECONDS
    began, first = time.monotonic(), world.ear.step
    attempt.until(lambda: world.ear.step > first + 50)
    rate_after = (world.ear.step - first) / (time.monotonic() - began)
    print(f"steps a second while S3 was away {rate_away:.1f}, after it {rate_after:.1f}")
    assert attempt.outcome(300).reason is TerminationReason.SUCCEEDED
    assert len(attempt.gangs) == 1
    assert rate_away > 0.5 * rate_after
    assert sorted(world.losses("s3"))[-1] == 600
    assert world.checkpoints("s3")[-1] == 600


def test_a_service_that_is_away_costs_no_step_and_no_event(world: World) -> None:
    attempt = world.start("http", **longer(600))
    attempt.until(lambda: world.ear.step > 20)
    world.ear.leave()
    waited(OUTAGE_SECONDS / 2)
    world.ear.listen()
    outcome = attempt.outcome(300)
    assert (outcome.reason, len(attempt.gangs)) == (TerminationReason.SUCCEEDED, 1)
    seconds = durations(world, "http")
    print(f"seconds a logged window: median {statistics.median(seconds):.2f}, largest {max(seconds):.2f}")
    assert max(seconds) < 5 * statistics.median(seconds)
    assert sorted(world.losses("http"))[-1] == 600


def other_node(world: World) -> Any:
    return next(iter(world.cluster.worker_nodes))


def sizes(attempt: Attempt) -> list[int]:
    """Workers of each gang that was started."""
    return [int(number) for number in re.findall(r"Started training worker group of size (\d+)", attempt.log)]


def durations(world: World, job: str) -> list[float]:
    """Wall seconds between logged training steps."""
    times = [entry.time_ms / 1000 for entry in world.logged(job) if "train/loss" in entry.metrics]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def waited(seconds: float) -> None:
    """An outage has a length: there is nothing to wait for but the time."""
    threading.Event().wait(seconds)


def assert_close(found: dict[int, float], expected: dict[int, float]) -> None:
    assert found.keys() == expected.keys()
    torch.testing.assert_close(
        torch.tensor([found[step] for step in sorted(found)]),
        torch.tensor([expected[step] for step in sorted(found)]),
        atol=1e-4,
        rtol=1e-4,
    )
