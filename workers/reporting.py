"""Words to the service: heartbeats, events, checkpoints and the outcome, over HTTP with the attempt's own token.

Training never waits for the service: a thread does all the speaking, and what cannot be delivered is tried again, in
its order, until the process ends.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from types import TracebackType
from typing import Protocol

import httpx

from ibllm_core.contract.run_spec import AttemptSpec, CheckpointReport, EventReport, Outcome, Progress

HEARTBEAT_SECONDS = 1.0  # of rank 0, whose progress users watch
RANK_HEARTBEAT_SECONDS = 10.0  # of each other rank, of which there may be a thousand
RETRY_SECONDS = 1.0
EVENTS_PATIENCE_SECONDS = 120.0
OUTCOME_PATIENCE_SECONDS = 300.0
MAX_EVENTS = 1000
log = logging.getLogger(__name__)


class Answer(Enum):
    """What became of a word."""

    TAKEN = auto()
    REFUSED = auto()
    AWAY = auto()


class Voice(Protocol):
    """Who hears how a run goes: the service, or a terminal."""

    def progress(self, progress: Progress) -> None:
        """Where it is now."""

    def event(self, message: str, *, level: str = "info", data: Mapping[str, object] | None = None) -> None:
        """Something that a user should read."""

    def metrics(self, message: str, data: Mapping[str, object]) -> None:
        """What was measured of a step: in words, and by name."""

    def checkpoint(self, report: CheckpointReport) -> None:
        """A checkpoint that can be used, and which ones there are now."""


class Reporter:
    """Context manager around an attempt's life; one in the driver, one in each rank."""

    def __init__(self, spec: AttemptSpec, rank: int = 0) -> None:
        self._client = httpx.Client(
            base_url=f"{spec.service_url}/internal/attempts/{spec.attempt_id}",
            headers={"authorization": f"Bearer {spec.token}"},
            timeout=10.0,
            trust_env=False,  # the service is on the cluster's own network, never behind a proxy
        )
        self._rank = rank
        self._progress: Progress | None = None
        self._words: deque[EventReport | CheckpointReport] = deque()
        self._dropped = 0
        self._outcome: Outcome | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._told = threading.Event()
        self._closing = False
        self._silenced = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(timeout=EVENTS_PATIENCE_SECONDS)
        if self._thread.is_alive():
            log.error("the service did not take %d events and checkpoints", len(self._words))
        else:
            self._client.close()

    def progress(self, progress: Progress | None) -> None:
        """Replace what the next heartbeat says, None for silence; never blocks."""
        self._progress = progress and progress.model_copy(update={"rank": self._rank})

    def event(self, message: str, *, level: str = "info", data: Mapping[str, object] | None = None) -> None:
        """Queue an event for the user to read; never blocks. Of more than a thousand that wait the oldest go."""
        self._say({"level": level, "message": message, "data": dict(data or {})})

    def metrics(self, message: str, data: Mapping[str, object]) -> None:
        """Queue a step's metrics as ``event`` does."""
        self._say({"type": "metrics", "message": message, "data": dict(data)})

    def checkpoint(self, report: CheckpointReport) -> None:
        """Queue what the service should know of a checkpoint, in its place among the events; never blocks or drops."""
        with self._lock:
            self._words.append(report)
        self._wake.set()

    def outcome(self, outcome: Outcome) -> None:
        """Say how the attempt ended, after all of its events; tries for five minutes, then leaves it to the reconciler.

        The service lets an attempt that has ended say nothing more.
        """
        self._outcome = outcome
        self._wake.set()
        if not self._told.wait(OUTCOME_PATIENCE_SECONDS):
            log.error("the service did not take the outcome %s", outcome.reason)
            self._outcome = None

    def _say(self, event: dict[str, object]) -> None:
        report = EventReport.model_validate({"id": uuid.uuid4().hex, **event})
        with self._lock:
            self._words.append(report)
            events = [place for place, word in enumerate(self._words) if isinstance(word, EventReport)]
            if len(events) > MAX_EVENTS:
                del self._words[events[0]]
                self._dropped += 1
        self._wake.set()

    def _run(self) -> None:
        while not self._silenced:
            closing = self._closing
            all_said = self._say_all()
            if closing and all_said:
                return
            interval = HEARTBEAT_SECONDS if self._rank == 0 else RANK_HEARTBEAT_SECONDS
            self._wake.wait(interval if all_said else RETRY_SECONDS)
            self._wake.clear()
        self._told.set()

    def _say_all(self) -> bool:
        """Say what waits, and the progress; whether nothing waits any more."""
        outcome = self._outcome
        while word := self._next_word():
            path = "/events" if isinstance(word, EventReport) else "/checkpoints"
            if self._post(path, word.model_dump_json()) is Answer.AWAY:
                self._keep(word)
                return False
        if self._progress is not None:
            self._post("/progress", self._progress.model_dump_json())
        if outcome is not None:
            if self._post("/outcome", outcome.model_dump_json()) is Answer.AWAY:
                return False
            self._silenced = True  # the last word
        return True

    def _next_word(self) -> EventReport | CheckpointReport | None:
        with self._lock:
            if self._dropped:
                message = f"{self._dropped} events were dropped while the service was away"
                self._words.appendleft(EventReport(id=uuid.uuid4().hex, level="warn", message=message))
                self._dropped = 0
            return self._words.popleft() if self._words else None

    def _keep(self, word: EventReport | CheckpointReport) -> None:
        with self._lock:
            self._words.appendleft(word)

    def _post(self, path: str, body: str) -> Answer:
        """A refusal is final: repeating it would change nothing. An attempt that may not speak falls silent."""
        if self._silenced:
            return Answer.REFUSED
        body = body.replace("\\u0000", "\\ufffd")  # PostgreSQL takes no NUL, and would refuse these words for ever
        try:
            response = self._client.post(path, content=body, headers={"content-type": "application/json"})
        except httpx.HTTPError as error:
            log.warning("the service cannot be reached: %s", error)
            return Answer.AWAY
        if response.is_success:
            return Answer.TAKEN
        log.warning("the service answers %s with %d: %s", path, response.status_code, response.text)
        self._silenced = response.status_code in (401, 409)
        return Answer.REFUSED if response.is_client_error and response.status_code not in (408, 429) else Answer.AWAY
