"""Logs of attempts: from Ray while they run, and kept when they have ended or Ray is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest
from httpx2 import Response
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract import layout
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from orchestrator.api import logs
from orchestrator.cluster.dashboard import Dashboard
from orchestrator.cluster.settings import RaySettings
from orchestrator.db.models import Attempt, Run
from orchestrator.db.session import connect, session_factory
from orchestrator.jobs.attempt_logs import AttemptLogs
from tests.orchestrator.api.dashboard import FakeRay, fake_ray
from tests.orchestrator.api.service import API_KEY, BASE, ENCODER, Live, Service, error_of
from tests.orchestrator.api.tenants import new_project

JOBS = "/v1/fine_tuning/jobs"
LISTEN_SECONDS = 10.0


@dataclass(frozen=True)
class Attempts:
    """The attempts of a job's stage 1, as the scheduler begins and ends them."""

    service: Service
    sessions: sessionmaker[Session]
    ray: FakeRay
    job_id: str

    def id_of(self, number: int) -> str:
        return f"{self.job_id}-stage1-{number}"

    def begin(self, number: int, printed: str) -> None:
        with self.sessions.begin() as session:
            run = session.get_one(Run, f"{self.job_id}-stage1")
            attempt = Attempt(id=self.id_of(number), number=number, project_id=run.job.project_id, token="t")
            run.attempts.append(attempt)
        self.ray.prints(self.id_of(number), printed)

    def keep(self, number: int, printed: str) -> None:
        self.service.store.put(layout.attempt_log(self.job_id, "stage1", number), printed.encode())

    def end(self, number: int, printed: str) -> None:
        self.keep(number, printed)
        with self.sessions.begin() as session:
            session.get_one(Attempt, self.id_of(number)).finished_at = datetime.now(UTC)

    def read(self, path: str = "/stage1", **query: str) -> Response:
        return self.service.http.get(f"{JOBS}/{self.job_id}/logs{path}", params=query)


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    with fake_ray() as ray:
        yield ray


@pytest.fixture(scope="module")
def file(service: Service) -> str:
    return service.file()


@pytest.fixture
def attempts(
    service: Service, database: str, file: str, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Attempts]:
    engine = connect(database)
    sessions = session_factory(engine)
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.01)
    before = service.app.state.attempt_logs
    service.app.state.attempt_logs = AttemptLogs(sessions, service.store, dashboard_of(ray))
    yield Attempts(service, sessions, ray, new_job(service, file))
    service.app.state.attempt_logs = before
    engine.dispose()


def new_job(service: Service, file: str) -> str:
    stages = [{"stage": "stage1", "training_file": file}]
    answer = service.http.post(JOBS, json={"model": BASE, "encoder": ENCODER, "stages": stages})
    return str(answer.json()["id"])


def dashboard_of(ray: FakeRay) -> Dashboard:
    return Dashboard(RaySettings(dashboard_url=ray.url, token="", token_path=None))


@contextmanager
def following(live: Live, attempts: Attempts) -> Iterator[Iterator[str]]:
    url = f"{live.base_url}/fine_tuning/jobs/{attempts.job_id}/logs/stage1"
    with (
        httpx.Client(trust_env=False, timeout=LISTEN_SECONDS, headers={"authorization": f"Bearer {API_KEY}"}) as client,
        client.stream("GET", url, params={"follow": "true"}) as answer,
    ):
        assert answer.status_code == 200
        yield answer.iter_text()


def until(text: Iterator[str], words: str) -> str:
    """What comes until some words have."""
    heard = ""
    while words not in heard:
        heard += next(text)
    return heard


def test_the_logs_of_all_attempts_are_kept(attempts: Attempts) -> None:
    for number in (1, 2):
        attempts.begin(number, "")
        attempts.end(number, f"attempt {number} at ümläute\n")
    attempts.begin(3, "attempt 3\n")
    listed = attempts.read("").json()["data"]
    assert [(log["id"], log["run"], log["attempt"], log["is_live"]) for log in listed] == [
        ("stage1-3", "stage1", 3, True),
        ("stage1-2", "stage1", 2, False),
        ("stage1-1", "stage1", 1, False),
    ]
    for number in (1, 2):
        assert attempts.read(attempt=str(number)).text == f"attempt {number} at ümläute\n"
    newest = attempts.read()
    assert newest.text == "attempt 3\n"
    assert newest.headers["content-type"] == "text/plain; charset=utf-8"
    assert attempts.ray.asked == {attempts.id_of(3): 1}


def test_a_live_log_is_followed_until_its_attempt_ends(live: Live, attempts: Attempts) -> None:
    attempts.begin(1, "one\n")
    with following(live, attempts) as text:
        assert until(text, "one\n") == "one\n"
        attempts.ray.prints(attempts.id_of(1), "two\n")
        assert until(text, "two\n") == "two\n"
        attempts.end(1, "one\ntwo\nthree\n")
        assert "".join(text) == "three\n"


def test_following_an_attempt_that_has_ended_tells_it_and_ends(live: Live, attempts: Attempts) -> None:
    attempts.begin(1, "")
    attempts.end(1, "all of it\n")
    with following(live, attempts) as text:
        assert "".join(text) == "all of it\n"


def test_while_ray_is_away_the_kept_copy_is_told(live: Live, attempts: Attempts) -> None:
    attempts.begin(1, "one\ntwo\n")
    attempts.keep(1, "one\n")
    attempts.ray.goes_away()
    assert attempts.read().text == "one\n"
    with following(live, attempts) as text:
        assert until(text, "one\n") == "one\n"
        attempts.keep(1, "one\ntwo\n")
        assert until(text, "two\n") == "two\n"
        attempts.end(1, "one\ntwo\nthe end\n")
        assert "".join(text) == "the end\n"


def test_an_attempt_that_ray_does_not_know_yet_has_printed_nothing(attempts: Attempts) -> None:
    attempts.begin(1, "")
    attempts.ray.goes_away()
    answer = attempts.read()
    assert (answer.status_code, answer.text) == (200, "")


def test_a_store_that_is_away_is_told_as_such(service: Service, attempts: Attempts) -> None:
    """Before a stream begins: later there would be no status to tell it with."""
    attempts.begin(1, "")
    attempts.end(1, "kept")
    nowhere = ObjectStore(StorageSettings(endpoint="http://127.0.0.1:1", access_key="a", secret_key="b"))
    service.app.state.attempt_logs = AttemptLogs(attempts.sessions, nowhere, dashboard_of(attempts.ray))
    answer = attempts.read(follow="true")
    assert answer.status_code == 503
    assert "try again in a moment" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        ("/stage2", {}, "no attempt of stage2 yet"),
        ("/stage1", {"attempt": "2"}, "no attempt 2 of stage1"),
        ("/evaluate", {}, "no attempt of evaluate yet"),
    ],
)
def test_a_log_that_is_none_is_not_found(attempts: Attempts, path: str, query: dict[str, str], words: str) -> None:
    attempts.begin(1, "one\n")
    error = error_of(attempts.read(path, **query), 404)
    assert error["param"] == "run"
    assert words in error["message"] and "/logs lists logs" in error["message"]


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [("/stage3", {}, "run"), ("/stage1", {"attempt": "0"}, "attempt"), ("/stage1", {"follow": "maybe"}, "follow")],
)
def test_a_wrong_word_is_named(attempts: Attempts, path: str, query: dict[str, str], param: str) -> None:
    assert error_of(attempts.read(path, **query))["param"] == param


def test_the_log_of_another_project_is_not_there(service: Service, database: str, attempts: Attempts) -> None:
    attempts.begin(1, "secret\n")
    theirs = new_project(database).headers
    for path in ("", "/stage1"):
        answer = service.http.get(f"{JOBS}/{attempts.job_id}/logs{path}", headers=theirs)
        assert "there is no job" in error_of(answer, 404)["message"]
