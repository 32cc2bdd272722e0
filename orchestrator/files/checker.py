"""The checker: takes files that nobody has checked, some at a time, and writes what is found in them."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.settings import StorageSettings
from orchestrator.files import claims
from orchestrator.files.check import Verdict, unforeseen
from orchestrator.files.isolation import Died, RunningCheck, warm_up

LOOK_SECONDS = 0.2
RENEW_SECONDS = 10.0
CHECKS_AT_ONCE = 2  # a large file does not keep small ones waiting
MAX_TRIES = 3  # of checks that die without a word, as where memory runs out
log = logging.getLogger(__name__)


class Checker:
    """Any number may run side by side; each touches ``heartbeat``, a file, whenever it has looked for work."""

    def __init__(
        self, sessions: sessionmaker[Session], settings: StorageSettings, heartbeat: Path | None = None
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._heartbeat = heartbeat
        self._running: list[RunningCheck] = []
        self._renewed = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop``; what is under way then is given back."""
        warm_up()
        try:
            while not stop.is_set():
                try:
                    self._look(stop)
                except OperationalError as error:
                    log.error("the database does not answer; trying again: %s", error)
                    stop.wait(1.0)
                wait([check.news for check in self._running], LOOK_SECONDS)
        finally:
            self._leave()

    def _look(self, stop: threading.Event) -> None:
        with self._sessions() as session:
            for check in list(self._running):
                outcome = check.outcome()
                if outcome is not None:
                    self._running.remove(check)
                    self._settle(session, check, outcome)
            if time.monotonic() - self._renewed > RENEW_SECONDS:
                self._renew(session)
            while len(self._running) < CHECKS_AT_ONCE and not stop.is_set() and self._begin(session):
                pass
        if self._heartbeat is not None:
            self._heartbeat.touch()

    def _renew(self, session: Session) -> None:
        self._renewed = time.monotonic()
        for check in list(self._running):
            claimed_at = claims.renew(session, check.task)
            if claimed_at is None:
                log.warning("%s was deleted or taken over while it was checked", check.task.file_id)
                self._running.remove(check)
                check.stop()
            else:
                check.task = replace(check.task, claimed_at=claimed_at)

    def _begin(self, session: Session) -> bool:
        task = claims.claim(session)
        if task is None:
            return False
        if task.tries > MAX_TRIES:  # whoever had it died as a whole, each time
            claims.finish(session, task, _given_up(MAX_TRIES))
        else:
            self._running.append(RunningCheck(self._settings, task))
        return True

    def _settle(self, session: Session, check: RunningCheck, outcome: Verdict | Died) -> None:
        task = check.task
        if isinstance(outcome, Died):
            if outcome.was_asked_to or task.tries < MAX_TRIES:
                log.warning("the check of %s died of signal %s; trying again", task.file_id, outcome.signal)
                claims.give_back(session, task, counts=not outcome.was_asked_to)
                return
            outcome = _given_up(task.tries)
        if outcome.outage is not None:
            log.warning("%s waits for the object store: %s", task.file_id, outcome.outage)
            claims.give_back(session, task, counts=False, after=claims.PAUSE)
            return
        if outcome.trace:
            log.error("the check of %s met a defect:\n%s", task.file_id, outcome.trace)
        self._write(session, check, outcome)

    def _write(self, session: Session, check: RunningCheck, verdict: Verdict) -> None:
        try:
            claims.finish(session, check.task, verdict)
        except OperationalError:
            raise
        except (DBAPIError, ValueError) as error:  # a report that no column can hold
            session.rollback()
            log.exception("the report on %s cannot be stored", check.task.file_id)
            claims.finish(session, check.task, unforeseen(type(error).__name__, ""))

    def _leave(self) -> None:
        for check in self._running:
            check.stop()
        try:
            with self._sessions() as session:
                for check in self._running:
                    claims.give_back(session, check.task, counts=False)
        except OperationalError as error:
            log.error("the database does not answer; claims lapse by themselves: %s", error)


def _given_up(tries: int) -> Verdict:
    return Verdict(
        problem=f"its check died {tries} times, as when memory runs out: save Parquet with smaller row groups, JSON as "
        "JSON Lines, or split the file"
    )
