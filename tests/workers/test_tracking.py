"""A run's history on the node and in the object store, over the real one."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ibllm_core.contract import layout
from ibllm_core.contract.history import Entry, entries_of
from ibllm_core.contract.run_spec import AttemptSpec
from ibllm_core.errors import ObjectMissingError
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from tests.ibllm_core.formats.object_store import RunningStore, running_store
from tests.orchestrator.registry.specs import attempt_spec
from workers.tracking.history import History
from workers.tracking.publisher import Publisher

PATIENCE = 30.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def store(running: RunningStore) -> ObjectStore:
    return ObjectStore(running.settings)


def first_attempt(request: pytest.FixtureRequest) -> AttemptSpec:
    return attempt_spec(job_id=request.node.name)


def published(store: ObjectStore, spec: AttemptSpec) -> list[Entry]:
    """The run's whole log."""
    found: list[Entry] = []
    for part in range(1000):
        try:
            found += entries_of(store.get(layout.history(spec.job_id, "stage1", part)))
        except ObjectMissingError:
            break
    return found


def steps(entries: list[Entry], name: str = "loss") -> list[int]:
    return [entry.step for entry in entries if name in entry.metrics]


def test_a_history_goes_on_from_a_checkpoint_without_the_steps_after_it(tmp_path: Path) -> None:
    first = History(tmp_path / "node-1", attempt_spec())
    for step in range(6):
        first.log(step, {"loss": 1 / (step + 1)})
    saved = first.to_bytes()
    second = History(tmp_path / "node-2", attempt_spec(number=2), saved=saved, step=3, resumed_from="step-3")
    for step in range(3, 6):  # the third is there already
        second.log(step, {"loss": 1 / (step + 1)})
    assert second.rows() == first.rows()
    kept = [entry for entry in entries_of(second.to_bytes()) if entry.metrics and entry.step <= 3]
    assert kept == [entry for entry in entries_of(saved) if entry.metrics and entry.step <= 3]  # times and all
    tags = {name: value for entry in entries_of(second.to_bytes()) for name, value in entry.tags.items()}
    assert tags == {"ibllm.attempt.1.resumed_from": "nothing", "ibllm.attempt.2.resumed_from": "step-3"}


def test_a_gang_that_starts_again_within_its_attempt_logs_on(
    tmp_path: Path, store: ObjectStore, request: pytest.FixtureRequest
) -> None:
    spec = first_attempt(request)
    first = History(tmp_path / "node-1", spec)
    with Publisher(first, store, spec, "stage1"):
        first.log(1, {"loss": 1.0})
        saved = first.to_bytes()
    for resumed_from in ("step 1", "step 1"):
        again = History(tmp_path / "node-2", spec, saved=saved, step=1, resumed_from=resumed_from)
        with Publisher(again, store, spec, "stage1"):
            saved = again.to_bytes()
    tags = [entry.tags for entry in published(store, spec) if entry.tags]
    name = f"ibllm.attempt.{spec.attempt_number}.resumed_from"
    assert tags == [{name: "nothing"}, {name: "step 1"}]


def test_metrics_of_one_step_make_one_row_and_strange_numbers_survive(tmp_path: Path) -> None:
    history = History(tmp_path, attempt_spec())
    history.log(1, {"loss": math.inf})
    history.log(1, {"eval": math.nan, "loss": 5.0})
    [row] = history.rows()
    assert (row["step"], row["loss"]) == (1, math.inf) and math.isnan(row["eval"])


def test_a_killed_process_leaves_all_that_it_logged_on_its_node(tmp_path: Path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from tests.orchestrator.registry.specs import attempt_spec
        from workers.tracking.history import History
        history = History(Path({str(tmp_path)!r}), attempt_spec())
        for step in range(100):
            history.log(step, {{"loss": 0.5}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    [path] = tmp_path.glob("*.jsonl")
    assert steps(list(entries_of(path.read_bytes()))) == list(range(100))


def test_a_full_disk_costs_no_point(tmp_path: Path) -> None:
    history = History(tmp_path, attempt_spec())
    with Path("/dev/full").open("wb", buffering=0) as full:
        file, history._file = history._file, full
        history.log(1, {"loss": 1.0})
        assert [row["step"] for row in history.rows()] == [1]
    history._file = file
    history.log(2, {"loss": 1.0})
    assert steps(list(entries_of(history.path.read_bytes()))) == [1, 2]


def test_all_that_was_logged_is_in_the_store_when_the_attempt_ends(
    store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = first_attempt(request)
    history = History(tmp_path, spec)
    with Publisher(history, store, spec, "stage1"):
        for step in range(50):
            history.log(step, {"loss": 0.5, "lr": 0.1})
    assert steps(published(store, spec)) == steps(published(store, spec), "lr") == list(range(50))
    assert not list(tmp_path.iterdir())


def test_a_resumed_attempt_on_another_node_logs_no_step_twice(
    store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Steps up to 9 are in the log, 10 only in the checkpoint, 11 nowhere; the checkpoint is at 10."""
    spec = first_attempt(request)
    first = History(tmp_path / "node-1", spec)
    with Publisher(first, store, spec, "stage1") as publisher:
        for step in range(10):
            first.log(step, {"loss": 0.5})
        assert publisher.flush(PATIENCE)
        saved = first.to_bytes() + Entry(attempt=1, time_ms=7, step=10, metrics={"loss": 0.25}).to_line()
    before = published(store, spec)
    again = attempt_spec(job_id=spec.job_id, number=2)
    second = History(tmp_path / "node-2", again, saved=saved, step=10, resumed_from="step-10")
    with Publisher(second, store, again, "stage1"):
        second.log(11, {"loss": 0.125})
    after = published(store, spec)
    assert after[: len(before)] == before
    assert steps(after) == list(range(12))
    assert [entry.time_ms for entry in after if entry.step == 10] == [7]


def test_an_old_attempt_that_still_lives_falls_silent(
    store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = first_attempt(request)
    old = History(tmp_path / "node-1", spec)
    with Publisher(old, store, spec, "stage1") as old_publisher:
        old.log(1, {"loss": 0.5})
        assert old_publisher.flush(PATIENCE)
        again = attempt_spec(job_id=spec.job_id, number=2)
        new = History(tmp_path / "node-2", again, resumed_from="nothing")
        with Publisher(new, store, again, "stage1") as publisher:
            assert publisher.flush(PATIENCE)
            old.log(2, {"loss": 0.9})
            assert not old_publisher.flush(PATIENCE)
            for step in (1, 2, 3):
                new.log(step, {"loss": 0.5})
    entries = published(store, spec)
    assert [(entry.step, entry.attempt) for entry in entries if entry.metrics] == [(1, 1), (2, 2), (3, 2)]


def test_a_part_whose_answer_was_lost_is_not_written_twice(
    store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = first_attempt(request)
    history = History(tmp_path, spec)
    history.log(1, {"loss": 0.5})
    with Publisher(history, store, spec, "stage1") as publisher:
        assert publisher.flush(PATIENCE)
        history.log(2, {"loss": 0.25})
        # The same words, as a try leaves them that the store carried out and could not answer.
        store.put(layout.history(spec.job_id, "stage1", 1), history.to_bytes().splitlines(keepends=True)[-1])
        assert publisher.flush(PATIENCE)
        history.log(3, {"loss": 0.125})
    assert steps(published(store, spec)) == [1, 2, 3]


def test_logging_waits_for_nothing_while_the_store_is_away(tmp_path: Path) -> None:
    spec = attempt_spec()
    away = ObjectStore(StorageSettings(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b"))
    history = History(tmp_path, spec)
    publisher = Publisher(history, away, spec, "stage1")
    publisher._thread.start()
    metrics = {f"gate/layer_{layer:02d}/abs_mean": 0.125 for layer in range(40)}
    slowest, started = 0.0, time.perf_counter()
    for step in range(2000):
        before = time.perf_counter()
        history.log(step, metrics)
        slowest = max(slowest, time.perf_counter() - before)
    mean = (time.perf_counter() - started) / 2000
    print(f"log of 40 metrics: mean {mean * 1e6:.0f} us, slowest {slowest * 1e3:.1f} ms")
    assert mean < 0.002
    assert not publisher.flush(0.1)
    assert len(history.rows()) == 2000
    publisher._abandoned = True
