"""Events and logs as they happen, through connections that break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ibllm_core.contract import layout
from ibllm_core.contract.api.jobs import FineTuningJobEvent
from ibllm_core.contract.states import RunKind
from orchestrator.client import Client, NotFoundError, NotReachableError, UnexpectedAnswerError
from tests.ibllm_core.formats.object_store import RunningStore
from tests.orchestrator.api.service import API_KEY, Service, settings_of
from tests.orchestrator.client.api_process import ApiProcess
from tests.orchestrator.client.scripted import Answer, ScriptedServer, as_events, refusal
from tests.orchestrator.client.work import Work

DONE = "event: done\ndata: [DONE]\n\n"
LATE = {"retry-after-ms": "0"}


@pytest.fixture
def api(database: str, running: RunningStore) -> Iterator[ApiProcess]:
    api = ApiProcess(settings_of(database, running))
    api.start()
    yield api
    api.kill()


def event(number: int) -> str:
    told = FineTuningJobEvent(id=f"e{number}", created_at=1, level="info", message=str(number), type="message", data={})
    return f"id: {told.id}\nevent: {told.object}\ndata: {told.model_dump_json()}\n\n"


def test_an_api_that_is_killed_and_comes_back_tells_each_event_once(api: ApiProcess, work: Work) -> None:
    job_id = work.put_job()
    work.say(job_id, "first")
    with Client(api.url, API_KEY, max_retries=0) as client:
        events = client.jobs.stream_events(job_id)
        told = [next(events).message]
        work.say(job_id, "while the stream is open, with a separator\u2028of lines")
        told.append(next(events).message)
        api.kill()
        work.say(job_id, "while nobody could hear")
        api.start()
        told.append(next(events).message)
        work.succeed(job_id)
        told += [event.message for event in events]
    assert told == [
        "first",
        "while the stream is open, with a separator\u2028of lines",
        "while nobody could hear",
        "the job succeeded",
    ]


def test_a_stream_goes_on_behind_the_last_whole_event(scripted: ScriptedServer) -> None:
    scripted.will_answer(
        as_events(event(1), event(2)[:-9], breaks_after=True),
        Answer(status=0),
        refusal(503, **LATE),
        as_events(event(2), ": still here\n\n"),  # ended as if all were well, but not by the job's end
        as_events(DONE),
    )
    with Client(scripted.url, "k", max_retries=0) as client:
        assert [event.id for event in client.jobs.stream_events("ftjob-1")] == ["e1", "e2"]
    asked = [request.headers.get("last-event-id") for request in scripted.requests]
    assert asked == [None, "e1", "e1", "e1", "e2"]


def test_a_stream_begins_behind_the_event_that_is_named(client: Client, work: Work) -> None:
    job_id = work.put_job()
    for message in ("one", "two"):
        work.say(job_id, message)
    work.succeed(job_id)
    first = next(client.jobs.stream_events(job_id))
    assert [event.message for event in client.jobs.stream_events(job_id, after=first.id)] == [
        "two",
        "the job succeeded",
    ]


def test_a_stream_that_stays_broken_is_given_up(scripted: ScriptedServer) -> None:
    scripted.will_answer(Answer(status=0))
    with Client(scripted.url, "k", max_retries=0) as client, pytest.raises(NotReachableError):
        list(client.jobs.stream_events("ftjob-1", patience=-1))


def test_what_is_no_stream_is_not_waited_for(scripted: ScriptedServer, client: Client) -> None:
    scripted.will_answer(Answer(body=b"<html>sign in</html>", headers={"content-type": "text/html"}))
    with Client(scripted.url, "k") as other, pytest.raises(UnexpectedAnswerError, match="did not answer with events"):
        list(other.jobs.stream_events("ftjob-1"))
    with pytest.raises(NotFoundError):
        list(client.jobs.stream_events("ftjob-none"))


def test_the_log_of_an_attempt_is_read_from_the_store(client: Client, work: Work, service: Service) -> None:
    job_id = work.put_job("compile", "stage1")
    assert list(client.jobs.logs(job_id)) == []
    attempt = work.start(job_id, "stage1")
    assert [(log.run, log.attempt, log.is_live) for log in client.jobs.logs(job_id)] == [(RunKind.STAGE1, 1, True)]
    work.end_attempt(attempt)
    service.store.put(layout.attempt_log(job_id, "stage1", 1), "Schritt 1 für \x1b[1malle\n".encode() * 1000)
    for follow in (False, True):
        assert b"".join(client.jobs.read_log(job_id, "stage1", follow=follow)).count(b"\n") == 1000
    with pytest.raises(NotFoundError, match="no attempt 7 of stage1"):
        list(client.jobs.read_log(job_id, RunKind.STAGE1, attempt=7))


def test_a_log_that_breaks_off_goes_on_where_it_was(scripted: ScriptedServer) -> None:
    scripted.will_answer(
        Answer(body=b"one\ntw", breaks_after=True),
        Answer(body=b"one", breaks_after=True),
        Answer(body=b"one\ntwo\nthree\n"),
    )
    with Client(scripted.url, "k", max_retries=0) as client:
        assert b"".join(client.jobs.read_log("ftjob-1", "stage1", follow=True)) == b"one\ntwo\nthree\n"
