"""Does what the outbox asks for: at least once each, by any number of couriers side by side.

A message is claimed in a short transaction, which moves its time on as a lease and counts the attempt; the effect
happens outside of any; what became of it is written in another one. A courier that dies leaves the message to whoever
comes after the lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from orchestrator.db.models import OutboxMessage
from orchestrator.outbox.backoff import Backoff
from orchestrator.outbox.lanes import Lanes
from orchestrator.outbox.messages import Kind

log = logging.getLogger(__name__)
KEEP_DAYS = 7
CLEAN_SECONDS = 3600.0
POLL_SECONDS = 0.5
MAX_ERROR = 1000
Handle = Callable[[dict[str, Any]], None]


class Undeliverable(Exception):  # noqa: N818 (a verdict on the message)
    """Trying again would change nothing; the message says why."""


@dataclass(frozen=True, kw_only=True)
class _Claim:
    id: int
    lane: str | None
    payload: dict[str, Any]
    attempt: int


class Courier:
    """Calls ``handle`` with the payloads of a kind; it must bear being called twice with the same one.

    It returns when the effect is done, raises ``Undeliverable`` to give it up, and anything else to be called again
    later. ``lease_seconds`` is longer than it ever takes.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        kind: Kind,
        handle: Handle,
        *,
        backoff: Backoff,
        lease_seconds: float = 60.0,
        num_threads: int = 1,
    ) -> None:
        self._sessions = sessions
        self._kind = kind
        self._handle = handle
        self._backoff = backoff
        self._lease = timedelta(seconds=lease_seconds)
        self._num_threads = num_threads
        self._lanes = Lanes(backoff)

    def run_once(self) -> int:
        """Do all that is due now, one after the other; how many messages that were."""
        count = 0
        while self._do_next():
            count += 1
        return count

    def run(self, stop: threading.Event) -> None:
        """Do what becomes due until ``stop``, and let go of what is old."""
        threads = [
            threading.Thread(target=self._work, args=(stop,), name=f"{self._kind}-{number}", daemon=True)
            for number in range(self._num_threads)
        ]
        for thread in threads:
            thread.start()
        while not stop.is_set():
            self._outlive(self.clean)
            stop.wait(CLEAN_SECONDS)
        for thread in threads:
            thread.join()

    def clean(self) -> None:
        """Remove what was done longer than a week ago."""
        with self._sessions.begin() as session:
            old = func.now() - timedelta(days=KEEP_DAYS)
            session.execute(delete(OutboxMessage).where(OutboxMessage.kind == self._kind, OutboxMessage.done_at < old))

    def _work(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if not self._outlive(self._do_next):
                stop.wait(POLL_SECONDS)

    def _outlive(self, work: Callable[[], bool | None]) -> bool | None:
        """A database that went away comes back; what was claimed meanwhile comes back after its lease."""
        try:
            return work()
        except SQLAlchemyError as error:
            log.error("the courier of %s waits for the database: %s", self._kind, error)
            return False

    def _do_next(self) -> bool:
        """Claim one message and do it; False where none is due."""
        with self._lanes.choosing() as closed:
            claim = self._claim(closed)
            if claim is None:
                return False
            self._lanes.enter(claim.lane)
        has_failed = True
        try:
            has_failed = self._do(claim)
        finally:
            self._lanes.leave(claim.lane, has_failed=has_failed)
        return True

    def _claim(self, closed_lanes: list[str]) -> _Claim | None:
        due = (
            select(OutboxMessage)
            .where(
                OutboxMessage.kind == self._kind, OutboxMessage.done_at.is_(None), OutboxMessage.next_at <= func.now()
            )
            .order_by(OutboxMessage.next_at, OutboxMessage.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if closed_lanes:
            due = due.where(or_(OutboxMessage.lane.is_(None), OutboxMessage.lane.not_in(closed_lanes)))
        with self._sessions.begin() as session:
            message = session.scalar(due)
            if message is None:
                return None
            attempt = message.attempts + 1
            session.execute(
                update(OutboxMessage)
                .where(OutboxMessage.id == message.id)
                .values(attempts=attempt, next_at=func.now() + self._lease)
                .execution_options(synchronize_session=False)
            )
            return _Claim(id=message.id, lane=message.lane, payload=message.payload, attempt=attempt)

    def _do(self, claim: _Claim) -> bool:
        """Whether the effect failed and is worth another try."""
        try:
            self._handle(claim.payload)
        except Undeliverable as verdict:
            log.warning("message %d of %s is given up: %s", claim.id, self._kind, verdict)
            self._settle(claim, done_at=func.now(), last_error=str(verdict)[:MAX_ERROR])
            return False
        except Exception as error:
            wait = self._backoff.seconds(claim.attempt)
            log.warning("message %d of %s failed, again in %.0f s: %s", claim.id, self._kind, wait, error)
            said = str(error) or type(error).__name__
            self._settle(claim, next_at=func.now() + timedelta(seconds=wait), last_error=said[:MAX_ERROR])
            return True
        self._settle(claim, done_at=func.now(), last_error=None)
        return False

    def _settle(self, claim: _Claim, **values: Any) -> None:
        """Write what became of a claim, unless it is done, or its lease ran out and somebody else claimed it."""
        mine = update(OutboxMessage).where(OutboxMessage.id == claim.id, OutboxMessage.done_at.is_(None))
        is_success = "done_at" in values and values["last_error"] is None
        if not is_success:
            mine = mine.where(OutboxMessage.attempts == claim.attempt)
        with self._sessions.begin() as session:
            session.execute(mine.values(**values).execution_options(synchronize_session=False))
