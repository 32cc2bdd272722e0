"""What the outbox asks for is done at least once, by however many couriers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from orchestrator.db.models import OutboxMessage
from orchestrator.db.session import connect, migrate, session_factory
from orchestrator.outbox.backoff import Backoff
from orchestrator.outbox.courier import KEEP_DAYS, Courier, Undeliverable
from orchestrator.outbox.messages import Kind, add
from tests.orchestrator.api.postgres import RunningPostgres

Sessions = sessionmaker[Session]
AT_ONCE = Backoff(first=0.0, longest=0.0)
LATER = Backoff(first=100.0, longest=1000.0)


def ask(sessions: Sessions, *names: str, kind: Kind = Kind.SUBMIT, lane: str | None = None) -> None:
    with sessions.begin() as session:
        for name in names:
            add(session, kind, {"name": name}, lane=lane)


def messages(sessions: Sessions) -> list[OutboxMessage]:
    with sessions() as session:
        return list(session.scalars(select(OutboxMessage).order_by(OutboxMessage.id)))


def make_due(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(update(OutboxMessage).values(next_at=func.now()))


class Worker:
    """Does what it is asked, and fails as often as it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.done: list[str] = []
        self._failures = list(failures)

    def __call__(self, payload: dict[str, Any]) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self.done.append(payload["name"])


def test_messages_of_the_kind_are_done_once_each_and_in_order(sessions: Sessions) -> None:
    ask(sessions, "a", "b", "c")
    ask(sessions, "other", kind=Kind.WEBHOOK)
    worker = Worker()
    courier = Courier(sessions, Kind.SUBMIT, worker, backoff=LATER)
    assert (courier.run_once(), courier.run_once(), worker.done) == (3, 0, ["a", "b", "c"])
    assert [(message.done_at is not None, message.attempts) for message in messages(sessions)] == [(True, 1)] * 3 + [
        (False, 0)
    ]


def test_a_rolled_back_change_asks_for_nothing(sessions: Sessions) -> None:
    with sessions() as session:
        add(session, Kind.SUBMIT, {"name": "never"})
        session.rollback()
    assert Courier(sessions, Kind.SUBMIT, Worker(), backoff=LATER).run_once() == 0


def test_the_effect_happens_outside_of_any_transaction(sessions: Sessions) -> None:
    ask(sessions, "a")
    seen: list[int] = []

    def look(_payload: dict[str, Any]) -> None:
        with sessions.begin() as session:  # would wait for ever for a row that the claim still held
            message = session.scalars(select(OutboxMessage).with_for_update(nowait=True)).one()
            seen.append(message.attempts)

    Courier(sessions, Kind.SUBMIT, look, backoff=LATER).run_once()
    assert seen == [1]


def test_a_failure_is_told_and_tried_again_later(sessions: Sessions) -> None:
    ask(sessions, "a")
    worker = Worker(ValueError("the cluster is away"))
    courier = Courier(sessions, Kind.SUBMIT, worker, backoff=LATER)
    assert (courier.run_once(), courier.run_once()) == (1, 0)
    [message] = messages(sessions)
    assert (message.last_error, message.done_at) == ("the cluster is away", None)
    wait = (message.next_at - datetime.now(UTC)).total_seconds()
    assert 60 < wait < 130
    make_due(sessions)
    assert (courier.run_once(), worker.done) == (1, ["a"])
    [message] = messages(sessions)
    assert (message.attempts, message.last_error, message.done_at is not None) == (2, None, True)


def test_what_cannot_be_delivered_is_given_up(sessions: Sessions) -> None:
    ask(sessions, "a")
    courier = Courier(sessions, Kind.SUBMIT, Worker(Undeliverable("the job was deleted")), backoff=AT_ONCE)
    assert (courier.run_once(), courier.run_once()) == (1, 0)
    [message] = messages(sessions)
    assert (message.last_error, message.done_at is not None) == ("the job was deleted", True)


def test_couriers_side_by_side_share_the_work(sessions: Sessions) -> None:
    names = [f"message {number}" for number in range(40)]
    ask(sessions, *names)
    workers = [Worker() for _ in range(4)]
    couriers = [Courier(sessions, Kind.SUBMIT, worker, backoff=LATER) for worker in workers]
    threads = [threading.Thread(target=courier.run_once) for courier in couriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for worker in workers for name in worker.done) == sorted(names)


def test_what_a_dead_courier_had_claimed_is_done_after_its_lease(sessions: Sessions) -> None:
    ask(sessions, "a")

    class Killed(BaseException):
        pass

    def die(_payload: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        Courier(sessions, Kind.SUBMIT, die, backoff=LATER).run_once()
    worker = Worker()
    heir = Courier(sessions, Kind.SUBMIT, worker, backoff=LATER)
    assert heir.run_once() == 0
    make_due(sessions)
    assert (heir.run_once(), worker.done) == (1, ["a"])


def test_a_courier_that_was_too_slow_does_not_undo_what_another_one_did(sessions: Sessions) -> None:
    ask(sessions, "a")
    heir = Courier(sessions, Kind.SUBMIT, Worker(), backoff=LATER)

    def dawdle(_payload: dict[str, Any]) -> None:
        make_due(sessions)
        assert heir.run_once() == 1
        raise ValueError("too late")

    Courier(sessions, Kind.SUBMIT, dawdle, backoff=AT_ONCE).run_once()
    [message] = messages(sessions)
    assert (message.done_at is not None, message.last_error) == (True, None)


def test_a_failure_of_the_past_does_not_end_another_ones_lease(sessions: Sessions) -> None:
    ask(sessions, "a")

    def dawdle(_payload: dict[str, Any]) -> None:
        with sessions.begin() as session:  # as the next claim leaves it
            session.execute(
                update(OutboxMessage).values(attempts=2, next_at=func.now() + timedelta(seconds=60), last_error=None)
            )
        raise ValueError("too late")

    Courier(sessions, Kind.SUBMIT, dawdle, backoff=LATER).run_once()
    [message] = messages(sessions)
    assert message.last_error is None
    assert message.next_at > datetime.now(UTC)


def test_old_messages_go_when_they_are_done(sessions: Sessions) -> None:
    ask(sessions, "old", "new", "open")
    with sessions.begin() as session:
        for name, age in (("old", KEEP_DAYS + 1), ("new", KEEP_DAYS - 1)):
            session.execute(
                update(OutboxMessage)
                .where(OutboxMessage.payload["name"].astext == name)
                .values(done_at=func.now() - timedelta(days=age))
            )
    Courier(sessions, Kind.SUBMIT, Worker(), backoff=LATER).clean()
    assert [message.payload["name"] for message in messages(sessions)] == ["new", "open"]


def test_one_receiver_that_hangs_holds_up_no_other(sessions: Sessions) -> None:
    """Two threads, and ten messages for a receiver that does not answer before those of the others."""
    ask(sessions, *["hang"] * 10, lane="dead")
    ask(sessions, "quick", "quick too", lane="alive")
    release, stop, told = threading.Event(), threading.Event(), threading.Condition()
    done: list[str] = []

    def handle(payload: dict[str, Any]) -> None:
        if payload["name"] == "hang":
            release.wait()
            raise ValueError("no answer")
        with told:
            done.append(payload["name"])
            told.notify_all()

    courier = Courier(sessions, Kind.SUBMIT, handle, backoff=LATER, num_threads=2)
    thread = threading.Thread(target=courier.run, args=(stop,), daemon=True)
    thread.start()
    with told:
        assert told.wait_for(lambda: len(done) == 2, timeout=30)
    stop.set()
    release.set()
    thread.join()
    assert done == ["quick", "quick too"]
    assert sum(message.attempts for message in messages(sessions) if message.lane == "dead") == 1


def test_a_courier_waits_for_a_database_that_is_away(
    postgres: RunningPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.outbox.courier.POLL_SECONDS", 0.01)
    complaint, done, stop = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr("orchestrator.outbox.courier.log.error", lambda *_: complaint.set())
    prepared = postgres.new_database("prepared")
    migrate(prepared)
    engine = connect(prepared)
    ask(session_factory(engine), "a")
    engine.dispose()
    later = session_factory(connect(prepared.replace("/prepared", "/later")))
    courier = Courier(later, Kind.SUBMIT, lambda _payload: done.set(), backoff=LATER)
    thread = threading.Thread(target=courier.run, args=(stop,), daemon=True)
    thread.start()
    assert complaint.wait(30)
    postgres.rename("prepared", "later")
    assert done.wait(30)
    stop.set()
    thread.join()
