"""Jobs followed as they go: events, logs, progress, and a user who stops looking."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ibllm_core.contract import layout
from orchestrator.client import Client
from tests.ibllm_core.formats.object_store import RunningStore
from tests.orchestrator.api.service import API_KEY, Service, settings_of
from tests.orchestrator.cli.conftest import Ibllm, command
from tests.orchestrator.client.api_process import ApiProcess
from tests.orchestrator.client.work import Work

pytestmark = pytest.mark.usefixtures("at")


@pytest.fixture
def api(database: str, running: RunningStore) -> Iterator[ApiProcess]:
    api = ApiProcess(settings_of(database, running))
    api.start()
    yield api
    api.kill()


def test_events_are_told_oldest_first(ibllm: Ibllm, work: Work) -> None:
    job_id = work.put_job()
    for message in ("one", "two", "three"):
        work.say(job_id, message)
    rows = ibllm("events", job_id, "--limit", "2").out.splitlines()[1:]
    assert [row.split()[-1] for row in rows] == ["two", "three"]
    newest_first = ibllm("events", job_id, "--json").json["data"]
    assert [event["message"] for event in newest_first] == ["three", "two", "one"]


def test_followed_events_end_with_the_job(ibllm: Ibllm, work: Work) -> None:
    job_id = work.put_job()
    work.say(job_id, "one [of] two")
    work.succeed(job_id)
    told = ibllm("events", job_id, "-f").out.splitlines()
    assert [line.split("info")[1].strip() for line in told] == ["one [of] two", "the job succeeded"]
    lines = ibllm("events", job_id, "-f", "--json").out.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["one [of] two", "the job succeeded"]


def test_the_log_of_the_newest_run_is_shown_as_it_is(ibllm: Ibllm, work: Work, service: Service) -> None:
    job_id = work.put_job("compile", "stage1")
    early = ibllm("logs", job_id)
    assert early.code == 5 and "none of its runs has started" in early.err
    for kind in ("compile", "stage1"):
        work.end_attempt(work.start(job_id, kind))
        service.store.put(layout.attempt_log(job_id, kind, 1), f"{kind} ist fertig \x1b[1m\n".encode())
    assert ibllm("logs", job_id, "-f").out == "stage1 ist fertig \x1b[1m\n"
    assert ibllm("logs", job_id, "--run", "compile", "--attempt", "1").out.startswith("compile")
    assert ibllm("logs", job_id, "--run", "compile", "--attempt", "2").code == 5
    assert ibllm("logs", job_id, "--run", "sleep").code == 2


def test_what_is_no_job_is_a_part_of_the_stack(ibllm: Ibllm, tmp_path: Path) -> None:
    (tmp_path / ".ibllm/logs").mkdir(parents=True)
    (tmp_path / ".ibllm/logs/api.log").write_text("".join(f"line {n}\n" for n in range(100)))
    ended = subprocess.run(command("logs", "api", "-n", "2"), capture_output=True, text=True, check=True)
    assert ended.stdout == "line 98\nline 99\n"
    for name in ("none", "../logs/api"):
        unknown = ibllm("logs", name)
        assert unknown.code == 1 and "of which there are: api" in unknown.err


def test_a_job_is_watched_to_its_end(ibllm: Ibllm, work: Work) -> None:
    done, failed, paused = work.put_job("compile", "stage1"), work.put_job(), work.put_job()
    model = work.succeed(done)
    work.fail(failed, "row 3 is too long")
    work.be_paused(paused)
    good = ibllm("watch", done)
    assert good.code == 0 and f"succeeded: {model}" in good.err
    assert [line.split()[:2] for line in good.out.splitlines()] == [["compile", "succeeded"], ["stage1", "succeeded"]]
    bad = ibllm("watch", failed)
    assert bad.code == 1 and "failed: row 3 is too long" in bad.err
    waits = ibllm("watch", paused)
    assert waits.code == 1 and f"ibllm resume {paused}" in waits.err
    [line] = ibllm("watch", done, "--json").out.splitlines()
    assert json.loads(line)["status"] == "succeeded"


def test_a_watch_outlives_the_service_and_tells_so(
    api: ApiProcess, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = work.put_job()
    work.start(job_id, "stage1")
    monkeypatch.setenv("IBLLM_URL", api.url)
    monkeypatch.setenv("IBLLM_API_KEY", API_KEY)
    words = command("watch", job_id)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "step 40/1,200" in process.stdout.readline()
        api.kill()
        assert "still trying" in process.stderr.readline()
        work.succeed(job_id)
        api.start()
        out, err = process.communicate()
    assert process.returncode == 0
    assert "stage1    succeeded" in out and "succeeded: ft:tiny" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_detaches_and_leaves_the_job_alone(number: signal.Signals, work: Work, client: Client) -> None:
    job_id = work.put_job()
    work.start(job_id, "stage1")
    words = command("watch", job_id)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "step 40/1,200" in process.stdout.readline()
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 130
    assert f"detached: {job_id} goes on" in err and "Traceback" not in err
    assert client.jobs.retrieve(job_id).cancel_requested is False
