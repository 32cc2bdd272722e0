"""Two API processes and two schedulers on one database: together they are as one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from orchestrator.db.models import ClusterSnapshot, Job
from orchestrator.db.session import connect, migrate, session_factory
from orchestrator.scheduler.__main__ import LEADER_LOCK
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.ibllm_core.formats.object_store import PEOPLE, RunningStore
from tests.orchestrator.api.postgres import RunningPostgres
from tests.orchestrator.api.service import BASE, ENCODER, WAIT_SECONDS, Live, Service, settings_of
from tests.orchestrator.api.tenants import Tenant, new_project

PLACE = f"s3://{PEOPLE}/replicas/"
NOWHERE = "http://127.0.0.1:1"
BODY = {
    "model": BASE,
    "encoder": ENCODER,
    "stages": [{"stage": "stage1", "training_file": f"{PLACE}rows.jsonl"}],
}


@pytest.fixture(scope="module")
def own_database(postgres: RunningPostgres) -> str:
    """One for these tests alone: real schedulers would move the jobs of all others."""
    address = postgres.new_database("replicas")
    migrate(address)
    return address


@pytest.fixture(scope="module")
def environment(service: Service, own_database: str, running: RunningStore) -> dict[str, str]:
    service.running.put("replicas/rows.jsonl", json_lines([chat_row()]))
    away = {"IBLLM_RAY_DASHBOARD_URL": NOWHERE, "IBLLM_MLFLOW_URL": NOWHERE}
    return {**os.environ, **settings_of(own_database, running), **away}


@contextmanager
def api(environment: dict[str, str]) -> Iterator[Live]:
    """The API in a process of its own; who comes early waits at its socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "--factory",
            "orchestrator.api.app:create_app",
            "--log-level",
            "error",
        ]
        file = listening.fileno()
        process = subprocess.Popen([*command, "--fd", str(file)], env=environment, pass_fds=[file])
        try:
            yield Live(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def replicas(environment: dict[str, str]) -> Iterator[tuple[Live, Live]]:
    with api(environment) as first, api(environment) as second:
        yield first, second


@pytest.fixture
def tenant(own_database: str) -> Tenant:
    return new_project(own_database, "admin", data_prefixes=[PLACE])


def client(live: Live, tenant: Tenant, **headers: str) -> httpx.Client:
    return httpx.Client(
        base_url=f"{live.base_url}/", headers=tenant.headers | headers, timeout=WAIT_SECONDS, trust_env=False
    )


def test_one_key_sent_to_both_at_once_makes_one_job(
    replicas: tuple[Live, Live], tenant: Tenant, own_database: str
) -> None:
    def create(number: int) -> httpx.Response:
        with client(replicas[number % 2], tenant, **{"idempotency-key": "once"}) as http:
            return http.post("fine_tuning/jobs", json=BODY)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    with session_factory(connect(own_database))() as session:
        made = session.scalars(select(Job.id).where(Job.project_id == tenant.project_id)).all()
    assert {answer.json()["id"] for answer in answers} == set(made)
    assert len(made) == 1


def test_a_retry_at_the_other_replica_finds_the_job(replicas: tuple[Live, Live], tenant: Tenant) -> None:
    with client(replicas[0], tenant) as first, client(replicas[1], tenant) as second:
        made = first.post("fine_tuning/jobs", json=BODY).json()["id"]
        again = second.post("fine_tuning/jobs", json=BODY, headers={"x-stainless-retry-count": "1"})
        assert again.json()["id"] == made


def test_what_happens_at_one_replica_is_streamed_by_the_other(replicas: tuple[Live, Live], tenant: Tenant) -> None:
    with client(replicas[0], tenant) as first, client(replicas[1], tenant) as second:
        job = first.post("fine_tuning/jobs", json=BODY).json()["id"]
        with second.stream("GET", f"fine_tuning/jobs/{job}/events?stream=true") as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if "the job is queued" in line)
            first.post(f"fine_tuning/jobs/{job}/cancel")
            assert next(line for line in lines if "the job is being cancelled" in line)


def test_a_key_that_one_replica_revokes_is_refused_by_the_other_at_once(
    replicas: tuple[Live, Live], tenant: Tenant
) -> None:
    keys = f"organization/projects/{tenant.project_id}/api_keys"
    with client(replicas[0], tenant) as first, client(replicas[1], tenant) as second:
        made = first.post(keys, json={"name": "short-lived"}).json()
        bearer = {"authorization": f"Bearer {made['value']}"}
        assert second.get("me", headers=bearer).status_code == 200
        assert first.delete(f"{keys}/{made['id']}").status_code == 200
        answer = second.get("me", headers=bearer)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "revoked_api_key")


@dataclass
class Scheduler:
    """A scheduler's process, by the name under which the database knows it."""

    name: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)


@contextmanager
def scheduler(environment: dict[str, str], name: str) -> Iterator[Scheduler]:
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.scheduler"],
        env={**environment, "PGAPPNAME": name},
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Scheduler(name, process)
    assert process.stderr
    reading = threading.Thread(target=running.lines.extend, args=(process.stderr,), daemon=True)
    reading.start()
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        reading.join()


@dataclass(frozen=True)
class Seen:
    """What the database shows of schedulers."""

    sessions: sessionmaker[Session]

    def wait_until(self, is_so: Callable[[], bool], scheduler: Scheduler) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so():
            assert scheduler.process.poll() is None, "".join(scheduler.lines)
            assert time.monotonic() < deadline, "".join(scheduler.lines)
            time.sleep(0.05)  # between two looks at the condition

    def leads(self, scheduler: Scheduler) -> bool:
        held = text(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND classid = 0 AND objid = :key AND granted"
        )
        with self.sessions() as session:
            return list(session.scalars(held, {"key": LEADER_LOCK})) == [scheduler.name]

    def tried_in_vain(self, scheduler: Scheduler) -> bool:
        tried = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND query = 'ROLLBACK'")
        with self.sessions() as session:
            return bool(session.scalar(tried, {"name": scheduler.name}))

    def passes_since(self, moment: datetime) -> bool:
        """Whether a pass has seen a cluster that does not answer."""
        with self.sessions() as session:
            snapshot = session.get(ClusterSnapshot, 1)
            return snapshot is not None and snapshot.updated_at > moment and not snapshot.view["reachable"]


@pytest.fixture
def seen(own_database: str) -> Iterator[Seen]:
    engine = connect(own_database)
    yield Seen(session_factory(engine))
    engine.dispose()


def test_one_scheduler_leads_and_another_takes_over_when_it_is_killed(
    environment: dict[str, str], seen: Seen, replicas: tuple[Live, Live], tenant: Tenant
) -> None:
    """Neither Ray nor MLflow is there: that is no reason to stop."""
    with client(replicas[0], tenant) as http, scheduler(environment, "first") as first:
        seen.wait_until(lambda: seen.leads(first), first)
        seen.wait_until(lambda: seen.passes_since(datetime.now(UTC) - timedelta(seconds=1)), first)
        with scheduler(environment, "second") as second:
            seen.wait_until(lambda: seen.tried_in_vain(second), second)
            assert seen.leads(first)
            job = http.post("fine_tuning/jobs", json=BODY).json()["id"]
            first.process.kill()
            first.process.wait()
            moment = datetime.now(UTC)
            seen.wait_until(lambda: seen.leads(second), second)
            seen.wait_until(lambda: seen.passes_since(moment), second)
            seen.wait_until(lambda: waiting_of(http, job) is not None, second)
            assert waiting_of(http, job) == "cluster_unreachable"


def waiting_of(http: httpx.Client, job: str) -> str | None:
    """Why a job's first run does not run, once a scheduler has said so."""
    waiting = http.get(f"fine_tuning/jobs/{job}").json()["runs"][0]["waiting"]
    return waiting and str(waiting["code"])
