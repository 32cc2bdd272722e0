"""A job's events as they happen: in order, each once, to any number of listeners, who cost nothing while they wait."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract.states import JobStatus
from orchestrator.api import live_events
from orchestrator.db.events import add_event
from orchestrator.db.models import Event, Job
from orchestrator.db.session import connect, session_factory
from tests.orchestrator.api.service import API_KEY, BASE, ENCODER, WAIT_SECONDS, Live, Service, error_of

JOBS = "/v1/fine_tuning/jobs"
FIRST = "the job is queued with the runs compile, stage1"
LISTEN_SECONDS = 10.0  # of silence, which keep-alives would break later: what comes within was looked for
ANOTHER_PROCESS = """
import sys
from orchestrator.db.events import add_event
from orchestrator.db.session import connect, session_factory
with session_factory(connect(sys.argv[1])).begin() as session:
    add_event(session, sys.argv[2], "from afar")
"""


@dataclass(frozen=True)
class Story:
    """A job whose events are written past the API, as the scheduler and other replicas do."""

    sessions: sessionmaker[Session]
    job_id: str

    def tell(self, *messages: str) -> None:
        for message in messages:
            with self.sessions.begin() as session:
                add_event(session, self.job_id, message)

    def end(self, message: str = "the end") -> None:
        with self.sessions.begin() as session:
            session.get_one(Job, self.job_id).status = JobStatus.SUCCEEDED
            add_event(session, self.job_id, message)

    def written(self) -> list[str]:
        with self.sessions() as session:
            query = select(Event.message).where(Event.job_id == self.job_id).order_by(Event.sequence)
            return list(session.scalars(query))


@pytest.fixture(scope="module")
def file(service: Service) -> str:
    return service.file()


@pytest.fixture
def story(service: Service, database: str, file: str) -> Iterator[Story]:
    engine = connect(database)
    yield Story(session_factory(engine), new_job(service, file))
    engine.dispose()


def new_job(service: Service, file: str) -> str:
    stages = [{"stage": "stage1", "training_file": file}]
    answer = service.http.post(JOBS, json={"model": BASE, "encoder": ENCODER, "stages": stages})
    return str(answer.json()["id"])


@dataclass
class Listener:
    """An open stream; ``comments`` are the lines that keep it alive."""

    lines: Iterator[str]
    ids: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    def hear(self, count: int) -> list[str]:
        """The messages of the next events."""
        return [event["message"] for event in islice(self._events(), count)]

    def hear_all(self) -> list[str]:
        """The messages of all events until the stream ends."""
        return [event["message"] for event in self._events()]

    def _events(self) -> Iterator[dict[str, Any]]:
        fields: dict[str, str] = {}
        for line in self.lines:
            if line.startswith(":"):
                self.comments.append(line)
                assert len(self.comments) < 1000, "nothing comes but comments"
            elif line:
                name, _, fields[name] = line.partition(": ")
            elif fields:
                event, fields = fields, {}
                if event["data"] == "[DONE]":
                    assert event["event"] == "done"
                    assert list(self.lines) == [], "something follows the end"
                    return
                shown = json.loads(event["data"])
                assert (event["id"], event["event"]) == (shown["id"], shown["object"])
                self.ids.append(shown["id"])
                yield shown
        raise AssertionError("the stream broke off before its end")


@contextmanager
def listening(live: Live, job_id: str, *, after: str | None = None) -> Iterator[Listener]:
    headers = {"authorization": f"Bearer {API_KEY}"} | ({"last-event-id": after} if after else {})
    url = f"{live.base_url}/fine_tuning/jobs/{job_id}/events"
    with (
        httpx.Client(trust_env=False, timeout=LISTEN_SECONDS) as client,
        client.stream("GET", url, params={"stream": "true"}, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield Listener(answer.iter_lines())


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks at the condition


def number_of_listeners(service: Service, story: Story) -> int:
    return len(service.app.state.live_events._listeners[story.job_id])


def nobody_listens(service: Service) -> bool:
    live = service.app.state.live_events
    return not live._listeners and not live._newest and live._looking.done()


def test_events_come_in_order_as_they_happen_until_the_job_has_ended(live: Live, story: Story) -> None:
    with listening(live, story.job_id) as listener:
        assert listener.hear(1) == [FIRST]
        story.tell("one")
        assert listener.hear(1) == ["one"]
        story.tell("two", "three")
        story.end()
        assert listener.hear_all() == ["two", "three", "the end"]


def test_the_story_of_a_job_that_has_ended_is_told_at_once(live: Live, story: Story) -> None:
    story.tell(*(str(n) for n in range(5)))
    story.end()
    with listening(live, story.job_id) as listener:
        assert listener.hear_all() == [FIRST, "0", "1", "2", "3", "4", "the end"]


def test_a_story_longer_than_one_look_is_told_whole(live: Live, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "BATCH", 3)
    story.tell(*(str(n) for n in range(9)))
    story.end()
    with listening(live, story.job_id) as listener:
        assert listener.hear_all() == story.written()


@pytest.mark.parametrize("heard", [1, 3, 5])
def test_a_listener_that_comes_back_hears_the_rest_without_gap_or_double(live: Live, story: Story, heard: int) -> None:
    story.tell("one", "two", "three", "four")
    with listening(live, story.job_id) as first:
        before = first.hear(heard)
    story.tell("meanwhile")
    story.end()
    with listening(live, story.job_id, after=first.ids[-1]) as second:
        assert before + second.hear_all() == story.written()
    assert not set(first.ids) & set(second.ids)


def test_who_has_heard_the_end_hears_only_that_it_was(live: Live, story: Story) -> None:
    story.end()
    with listening(live, story.job_id) as listener:
        listener.hear_all()
    with listening(live, story.job_id, after=listener.ids[-1]) as again:
        assert again.hear_all() == []


def test_a_place_that_is_none_of_the_jobs_is_not_found(service: Service, story: Story, file: str) -> None:
    other = new_job(service, file)
    foreign = service.http.get(f"{JOBS}/{other}/events").json()["first_id"]
    for place in ("ftevent-none", foreign):
        headers = {"last-event-id": place}
        answer = service.http.get(f"{JOBS}/{story.job_id}/events?stream=true", headers=headers)
        assert error_of(answer, 404)["param"] == "Last-Event-ID"


def test_a_stream_takes_no_cursor(service: Service, story: Story) -> None:
    answer = service.http.get(f"{JOBS}/{story.job_id}/events?stream=true&after=x")
    assert (error := error_of(answer))["param"] == "after"
    assert "goes on after the header Last-Event-ID" in error["message"]


def test_silence_is_filled_with_comments(live: Live, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "KEEP_ALIVE_SECONDS", 0.05)
    with listening(live, story.job_id) as listener:
        assert listener.hear(1) == [FIRST]
        assert next(line for line in listener.lines if line) == ": still here"
        story.end()
        assert listener.hear_all() == ["the end"]


def test_all_listeners_of_a_job_hear_the_same(live: Live, story: Story) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(listening(live, story.job_id)) for _ in range(5)]
        for listener in listeners:
            assert listener.hear(1) == [FIRST]
        story.tell("one")
        story.end()
        assert [listener.hear_all() for listener in listeners] == [["one", "the end"]] * 5


def test_whoever_listens_hears_of_one_job_only(live: Live, service: Service, story: Story, file: str) -> None:
    other = Story(story.sessions, new_job(service, file))
    with listening(live, story.job_id) as listener:
        listener.hear(1)
        other.tell("not for you")
        story.end()
        assert listener.hear_all() == ["the end"]


def test_a_listener_that_goes_away_leaves_nothing_behind(live: Live, service: Service, story: Story) -> None:
    with listening(live, story.job_id) as stays:
        stays.hear(1)
        with listening(live, story.job_id) as goes:
            goes.hear(1)
            assert number_of_listeners(service, story) == 2
        wait_for(lambda: number_of_listeners(service, story) == 1)
        story.tell("still there?")
        assert stays.hear(1) == ["still there?"]
    wait_for(lambda: nobody_listens(service))


def test_an_event_of_another_process_is_heard(live: Live, story: Story, database: str) -> None:
    with listening(live, story.job_id) as listener:
        listener.hear(1)
        subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, database, story.job_id], check=True)
        assert listener.hear(1) == ["from afar"]


def test_fifty_that_wait_hold_no_connection_and_the_service_goes_on(live: Live, service: Service, story: Story) -> None:
    before = connections(story)
    with ExitStack() as stack:
        waiting = [stack.enter_context(listening(live, story.job_id)) for _ in range(50)]
        for listener in waiting:
            listener.hear(1)
        wait_for(lambda: service.app.state.sessions.kw["bind"].pool.checkedout() == 0)
        assert connections(story) <= before
        assert service.http.get(f"{JOBS}/{story.job_id}").json()["id"] == story.job_id
        story.end()
        assert [listener.hear_all() for listener in waiting] == [["the end"]] * 50
    wait_for(lambda: nobody_listens(service))


def connections(story: Story) -> int:
    """Connections to this database that are in a transaction, beside the one that asks."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND state LIKE 'idle in transaction%'"
    )
    with story.sessions() as session:
        return int(session.scalar(query) or 0)


def test_who_writes_second_waits_for_the_first_so_that_nothing_is_passed_over(live: Live, story: Story) -> None:
    with listening(live, story.job_id) as listener, story.sessions() as slow:
        listener.hear(1)
        add_event(slow, story.job_id, "first")
        slow.flush()
        second = threading.Thread(target=story.tell, args=("second",))
        second.start()
        wait_for(lambda: somebody_waits_for_a_lock(story))
        slow.commit()
        second.join()
        assert listener.hear(2) == ["first", "second"]


def somebody_waits_for_a_lock(story: Story) -> bool:
    with story.sessions() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")))


def test_what_many_write_at_once_is_heard_in_order_and_whole(
    live: Live, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transactions that begin earlier commit later; without the writers' lock a listener would pass over theirs."""
    monkeypatch.setattr(live_events, "LOOK_SECONDS", 0.001)

    def write(name: int) -> None:
        for number in range(15):
            with story.sessions.begin() as session:
                add_event(session, story.job_id, f"{name}: {number}")
                session.flush()
                session.execute(text("SELECT pg_sleep(random() * 0.01)"))

    with listening(live, story.job_id) as listener:
        writers = [threading.Thread(target=write, args=(name,)) for name in range(6)]
        for writer in writers:
            writer.start()
        heard = listener.hear(1 + 6 * 15)
        for writer in writers:
            writer.join()
    assert heard == story.written()
    assert len(set(listener.ids)) == len(heard)
