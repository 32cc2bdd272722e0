"""Jobs whose training logs while MLflow comes and goes: real PostgreSQL, object store, MLflow, and worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract import layout
from ibllm_core.contract.history import entries_of
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import RunKind, RunState, TerminationReason
from ibllm_core.storage import ObjectStore
from orchestrator.db.models import Attempt, Event, Job, Model, OutboxMessage, Run
from orchestrator.db.session import connect, session_factory
from orchestrator.errors import RegistryUnreachableError
from orchestrator.ids import new_id
from orchestrator.jobs.catalogue import Catalogue
from orchestrator.jobs.prepare import Shop
from orchestrator.registry.mlflow_registry import Registry
from orchestrator.registry.tracker import Tracker
from orchestrator.scheduler import settling
from orchestrator.scheduler.effects import World
from orchestrator.scheduler.reconciler import Reconciler
from orchestrator.scheduler.views import RETRY, RayStatus
from orchestrator.tenants.bootstrap import DEFAULT_PROJECT
from tests.ibllm_core.formats.object_store import RunningStore
from tests.orchestrator.registry.mlflow_server import MlflowServer
from tests.orchestrator.registry.specs import attempt_spec
from tests.orchestrator.scheduler.house import StandInRay
from workers.tracking.history import History
from workers.tracking.publisher import Publisher

PATIENCE = 30.0
REQUEST = JobRequest.model_validate(
    {
        "model": "tiny",
        "encoder": "e",
        "suffix": "s",
        "resources": {"workers": 1},
        "stages": [{"stage": stage, "training_file": "f"} for stage in ("stage1", "stage2")],
    }
)


class Service:
    """The scheduler and the tracker over a database, and a job that is about to train its first stage."""

    def __init__(self, sessions: sessionmaker[Session], registry: Registry, store: ObjectStore) -> None:
        self.sessions, self.store = sessions, store
        self.ray = StandInRay()
        shop = Shop(store=store, catalogue=Catalogue(store), default_encoder="e", local_data=False)
        world = World(ray=self.ray, shop=shop, service_url="http://none")  # type: ignore[arg-type]
        self.reconciler = Reconciler(sessions, world)
        self.tracker = Tracker(sessions, registry, store)
        self.job_id = new_id("ftjob")
        kinds = (RunKind.COMPILE, RunKind.STAGE1, RunKind.STAGE2)
        with sessions() as session:
            job = Job(id=self.job_id, project_id=DEFAULT_PROJECT, request=REQUEST.model_dump(mode="json"))
            job.runs = [
                Run(id=f"{job.id}-{kind}", position=position, kind=kind, outputs={})
                for position, kind in enumerate(kinds)
            ]
            _end(job.runs[0], {"datasets": {f"{stage}.training_file": "d" for stage in ("stage1", "stage2")}})
            session.add(job)
            session.commit()
        self.reconciler.run_once()

    @property
    def run_id(self) -> str:
        return f"{self.job_id}-stage1"

    def job(self) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, self.job_id)

    def run(self) -> Run:
        return self.job().runs[1]

    def attempt_dies(self) -> None:
        """Ray sees the end of the newest attempt, which was last heard of a minute ago; there is no retry left."""
        attempt = self.run().attempts[-1]
        long_ago = datetime(2026, 1, 1, tzinfo=UTC)
        with self.sessions() as session:
            session.execute(update(Attempt).where(Attempt.id == attempt.id).values(heartbeat_at=long_ago))
            own = {"run_id": self.run_id, "project_id": DEFAULT_PROJECT, "token": "t"}
            for number in range(2, RETRY.max_attempts + 1):
                session.add(Attempt(id=f"{self.run_id}-{number}", number=number, **own))
            session.commit()
        self.ray.jobs[self.run().attempts[-1].id] = RayStatus.ENDED
        for _ in range(2):  # starting, running, done
            self.reconciler.run_once()
        assert (self.run().state, self.run().reason) == (RunState.DONE, TerminationReason.INFRASTRUCTURE)

    def all_succeed(self) -> None:
        with self.sessions() as session:
            for run in session.get_one(Job, self.job_id).runs:
                _end(run, {"adapter": f"models/{self.job_id}", "adapter_sha256": "abc"})
            session.commit()


def _end(run: Run, outputs: dict[str, object]) -> None:
    run.state, run.reason, run.outputs = RunState.DONE, TerminationReason.SUCCEEDED, outputs
    run.started_at = run.finished_at = datetime.now(UTC)


@pytest.fixture(scope="package")
def sessions(database: str) -> sessionmaker[Session]:
    return session_factory(connect(database))


@pytest.fixture
def service(sessions: sessionmaker[Session], registry: Registry, running: RunningStore) -> Service:
    with sessions() as session:  # the jobs of other tests are over
        for table in (Event, Model, OutboxMessage, Job):
            session.query(table).delete()
        session.commit()
    return Service(sessions, registry, ObjectStore(running.settings))


def steps(mlflow: MlflowServer, run: Run, name: str = "loss") -> list[int]:
    return [step for step, _, _ in mlflow.points(str(run.mlflow_run_id), name)]


def test_a_run_starts_without_mlflow_and_is_made_there_when_it_is_back(service: Service, mlflow: MlflowServer) -> None:
    assert service.run().state == RunState.STARTING
    assert list(service.ray.jobs) == [f"{service.run_id}-1"]
    mlflow.hang()
    with pytest.raises(RegistryUnreachableError):
        service.tracker.run_once()
    mlflow.go_on()
    for _ in range(2):
        service.tracker.run_once()
    [run] = mlflow.runs(service.run_id)
    assert (run.info.run_id, run.info.status) == (service.run().mlflow_run_id, "RUNNING")
    assert run.data.params["seed"] == "0" and "learning_rate" in run.data.params


def test_an_outage_in_the_middle_costs_the_training_nothing_and_no_point(
    service: Service, mlflow: MlflowServer, tmp_path: Path
) -> None:
    """MLflow hangs, then dies, then comes back; training logs on, and each point is there once."""
    spec = attempt_spec(job_id=service.job_id)
    history = History(tmp_path, spec)
    slowest = 0.0
    with Publisher(history, service.store, spec, "stage1") as publisher:
        for step in range(300):
            if step in (100, 200):
                assert publisher.flush(PATIENCE)
            if step == 100:
                service.tracker.run_once()
                mlflow.hang()
            if step in (150, 250):
                assert publisher.flush(PATIENCE)
                with pytest.raises(RegistryUnreachableError):
                    service.tracker.run_once()
            if step == 200:
                mlflow.kill()
            before = time.perf_counter()
            history.log(step, {"loss": 1 / (step + 1), "lr": 0.5})
            slowest = max(slowest, time.perf_counter() - before)
    mlflow.start()
    for _ in range(2):
        service.tracker.run_once()
    print(f"slowest log {slowest * 1e3:.2f} ms")
    assert slowest < 0.05
    assert steps(mlflow, service.run()) == steps(mlflow, service.run(), "lr") == list(range(300))
    sent = [(int(row["step"]), row["loss"]) for row in _logged(service)]
    assert sent == [point[:2] for point in mlflow.points(str(service.run().mlflow_run_id), "loss")]


def test_a_tracker_that_died_after_a_request_sends_it_again_and_no_point_is_there_twice(
    service: Service, mlflow: MlflowServer, tmp_path: Path
) -> None:
    spec = attempt_spec(job_id=service.job_id)
    history = History(tmp_path, spec)
    with Publisher(history, service.store, spec, "stage1") as publisher:
        for step in range(10):
            history.log(step, {"loss": 0.5})
        assert publisher.flush(PATIENCE)
        service.tracker.run_once()
        with service.sessions() as session:  # as if the process had died before it noted that
            session.execute(update(Run).where(Run.id == service.run_id).values(tracked_parts=0, mlflow_run_id=None))
            session.commit()
        history.log(10, {"loss": 0.5})
    service.tracker.run_once()
    assert len(mlflow.runs(service.run_id)) == 1
    assert steps(mlflow, service.run()) == list(range(11))


def test_a_resume_on_another_node_leaves_each_step_once(service: Service, mlflow: MlflowServer, tmp_path: Path) -> None:
    """The first attempt logged up to 12, and its checkpoint is at 8: the steps it logged first stand."""
    first = attempt_spec(job_id=service.job_id)
    history = History(tmp_path / "node-1", first)
    with Publisher(history, service.store, first, "stage1"):
        for step in range(13):
            history.log(step, {"loss": 1.0 / (step + 1), "tokens": 1.0})
            if step == 8:
                saved = history.to_bytes()
    service.tracker.run_once()
    second = attempt_spec(job_id=service.job_id, number=2)
    history = History(tmp_path / "node-2", second, saved=saved, step=8, resumed_from="checkpoints/step-00000008")
    with Publisher(history, service.store, second, "stage1"):
        for step in range(9, 20):
            history.log(step, {"loss": 1.0 / (step + 1), "tokens": 2.0})
        assert [int(row["step"]) for row in history.rows()] == list(range(20))
    service.tracker.run_once()
    assert steps(mlflow, service.run()) == steps(mlflow, service.run(), "tokens") == list(range(20))
    tags = mlflow.runs(service.run_id)[0].data.tags
    assert tags["ibllm.attempt.1.resumed_from"] == "nothing"
    assert tags["ibllm.attempt.2.resumed_from"] == "checkpoints/step-00000008"


def test_a_killed_attempt_is_closed_as_failed_even_when_mlflow_was_away_then(
    service: Service, mlflow: MlflowServer, tmp_path: Path
) -> None:
    mlflow.kill()
    _train_until_killed(service, tmp_path, num_steps=25)
    service.attempt_dies()
    with pytest.raises(RegistryUnreachableError):
        service.tracker.run_once()
    assert service.run().tracking_closed_at is None
    mlflow.start()
    service.tracker.run_once()
    [run] = mlflow.runs(service.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["ibllm.reason"] == "infrastructure"
    assert run.data.tags["ibllm.attempts"] == "3"
    assert run.data.tags["ibllm.attempt.3.reason"] == "infrastructure"
    assert steps(mlflow, service.run()) == list(range(25))
    assert run.info.end_time == int(service.run().finished_at.timestamp() * 1000)  # type: ignore[union-attr]
    assert service.run().tracking_closed_at is not None


def test_a_job_succeeds_while_mlflow_is_away_and_its_model_is_registered_later(
    service: Service, mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow.hang()
    service.all_succeed()
    service.reconciler.run_once()
    assert service.job().status == "running"  # MLflow has some seconds to come along
    with pytest.raises(RegistryUnreachableError):
        service.tracker.run_once()
    monkeypatch.setattr(settling, "TRACKING_PATIENCE", timedelta())
    service.reconciler.run_once()
    assert service.job().status == "succeeded"
    model = f"ft:tiny:default:s:{service.job_id.removeprefix('ftjob-')}"
    assert service.job().fine_tuned_model == model
    mlflow.go_on()
    for _ in range(2):
        service.tracker.run_once()
    version = mlflow.client.get_model_version_by_alias("tiny.s", "newest")
    assert version.tags["ibllm.job_id"] == service.job_id
    assert {run.info.status for run in mlflow.runs(service.run_id)} == {"FINISHED"}
    assert service.job().tracking_closed_at is not None


def test_a_job_ends_as_soon_as_mlflow_has_all_of_it(service: Service, mlflow: MlflowServer) -> None:
    service.all_succeed()
    service.reconciler.run_once()
    assert service.job().status == "running"
    service.tracker.run_once()
    service.reconciler.run_once()
    assert service.job().status == "succeeded"


def test_what_mlflow_refuses_is_told_and_holds_nothing_up(
    service: Service, mlflow: MlflowServer, tmp_path: Path
) -> None:
    spec = attempt_spec(job_id=service.job_id)
    history = History(tmp_path, spec)
    with Publisher(history, service.store, spec, "stage1") as publisher:
        history.log(1, {"a metric?": 0.5})
        assert publisher.flush(PATIENCE)
        service.tracker.run_once()
        history.log(2, {"loss": 0.5})
    service.tracker.run_once()
    assert steps(mlflow, service.run()) == [2]
    with service.sessions() as session:
        told = [event.message for event in session.query(Event).filter(Event.job_id == service.job_id)]
    assert any("stay out of MLflow, and in jobs/" in message and "a metric?" in message for message in told)


def _train_until_killed(service: Service, folder: Path, *, num_steps: int) -> None:
    """A worker process logs, the object store has it, and SIGKILL ends it in its next step."""
    settings = service.store.settings
    program = f"""
        import os, signal
        from pathlib import Path
        from ibllm_core.settings import StorageSettings
        from ibllm_core.storage import ObjectStore
        from tests.orchestrator.registry.specs import attempt_spec
        from workers.tracking.history import History
        from workers.tracking.publisher import Publisher
        spec = attempt_spec(job_id={service.job_id!r})
        store = ObjectStore(StorageSettings(
            endpoint={settings.endpoint!r}, access_key={settings.access_key!r}, secret_key={settings.secret_key!r}))
        history = History(Path({str(folder)!r}), spec)
        with Publisher(history, store, spec, "stage1") as publisher:
            for step in range({num_steps}):
                history.log(step, {{"loss": 0.5}})
            assert publisher.flush(30)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=dict(os.environ), check=False)
    assert ended.returncode == -signal.SIGKILL


def _logged(service: Service) -> list[dict[str, float]]:
    keys = service.store.list(layout.history(service.job_id, "stage1", 0).rsplit("/", 1)[0])
    entries = [entry for key in keys for entry in entries_of(service.store.get(key))]
    return [{"step": entry.step, **entry.metrics} for entry in entries if entry.metrics]
