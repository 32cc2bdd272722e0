"""What the service relies on in MLflow, asked of the real server."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

import pytest

from ibllm_core.contract.history import Entry
from ibllm_core.contract.states import TerminationReason
from orchestrator.errors import RegistryRefusedError, RegistryUnreachableError
from orchestrator.registry.mlflow_registry import Registry
from tests.orchestrator.registry.conftest import TIMEOUT_SECONDS
from tests.orchestrator.registry.mlflow_server import MlflowServer

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 2, tzinfo=UTC)


def start(registry: Registry, name: str, **parameters: str) -> str:
    return registry.start_run(job_id="job", run_id=name, kind="stage1", parameters=parameters, started_at=START)


def entries(steps: range, **tags: str) -> list[Entry]:
    values = (math.nan, math.inf, 0.1, -1e-300)
    logged = [
        Entry(attempt=1, time_ms=1_700_000_000_000 + step, step=step, metrics={"loss": values[step % 4], "lr": 0.5})
        for step in steps
    ]
    return [*logged, Entry(attempt=1, time_ms=1, tags=tags)]


def test_a_run_is_made_once_and_its_parameters_are_completed(registry: Registry, mlflow: MlflowServer) -> None:
    first = start(registry, "made-once", seed="0")
    assert start(registry, "made-once", seed="0", base="b") == first
    [run] = mlflow.runs("made-once")
    assert run.data.params == {"seed": "0", "base": "b"}
    assert run.info.start_time == START.timestamp() * 1000


def test_points_that_are_sent_again_are_there_once(registry: Registry, mlflow: MlflowServer) -> None:
    """Wholly, half, and beside new ones; NaN and infinity too. One history is longer than a request."""
    run = start(registry, "sent-again")
    registry.log(run, entries(range(900)))
    registry.log(run, entries(range(900)))
    registry.log(run, entries(range(600, 1500), **{"ibllm.attempt.2.resumed_from": "step-600"}))
    assert [step for step, _, _ in mlflow.points(run, "loss")] == list(range(1500))
    assert [point[2] for point in mlflow.points(run, "lr")] == [1_700_000_000_000 + step for step in range(1500)]
    assert mlflow.runs("sent-again")[0].data.tags["ibllm.attempt.2.resumed_from"] == "step-600"


def test_a_request_that_timed_out_and_was_carried_out_leaves_no_second_point(
    registry: Registry, mlflow: MlflowServer
) -> None:
    run = start(registry, "timed-out")
    mlflow.hang()
    before = time.monotonic()
    with pytest.raises(RegistryUnreachableError):
        registry.log(run, entries(range(100)))
    assert time.monotonic() - before < TIMEOUT_SECONDS + 2
    mlflow.go_on()
    registry.log(run, entries(range(100)))
    assert [step for step, _, _ in mlflow.points(run, "loss")] == list(range(100))


def test_the_twin_of_a_run_whose_making_timed_out_is_deleted(registry: Registry, mlflow: MlflowServer) -> None:
    run = start(registry, "twin")
    experiment = mlflow.client.get_run(run).info.experiment_id
    mlflow.client.create_run(experiment, tags={"ibllm.run_id": "twin"}, start_time=0)
    registry.finish_run(run, run_id="twin", reason=TerminationReason.SUCCEEDED, tags={}, ended_at=END)
    assert [(found.info.run_id, found.info.status) for found in mlflow.runs("twin")] == [(run, "FINISHED")]


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (TerminationReason.SUCCEEDED, "FINISHED"),
        (TerminationReason.CANCELLED, "KILLED"),
        (TerminationReason.INFRASTRUCTURE, "FAILED"),
        (TerminationReason.USER_ERROR, "FAILED"),
    ],
)
def test_a_run_ends_as_it_ended(
    registry: Registry, mlflow: MlflowServer, reason: TerminationReason, status: str
) -> None:
    run = start(registry, f"ends-{reason}")
    for _ in range(2):
        registry.finish_run(run, run_id=f"ends-{reason}", reason=reason, tags={"ibllm.attempts": "2"}, ended_at=END)
    [found] = mlflow.runs(f"ends-{reason}")
    assert (found.info.status, found.info.end_time) == (status, END.timestamp() * 1000)
    assert (found.data.tags["ibllm.reason"], found.data.tags["ibllm.attempts"]) == (reason, "2")


def test_what_mlflow_will_never_take_is_told_from_what_it_cannot_take_now(
    registry: Registry, mlflow: MlflowServer
) -> None:
    run = start(registry, "refused")
    with pytest.raises(RegistryRefusedError, match="refused"):
        registry.log(run, [Entry(attempt=1, time_ms=1, step=1, metrics={"a metric?": 1.0})])
    mlflow.client.delete_run(run)
    with pytest.raises(RegistryRefusedError):
        registry.log(run, entries(range(3)))
    with pytest.raises(RegistryRefusedError):
        registry.log("0" * 32, entries(range(3)))
    with pytest.raises(RegistryUnreachableError):
        Registry("http://127.0.0.1:9", TIMEOUT_SECONDS).log(run, entries(range(3)))
