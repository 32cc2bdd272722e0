"""Who must wait: a lane has one message under way, and rests after failures, longer with each one in a row.

A receiver that does not answer would else take one place after the other with all that waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.outbox.backoff import Backoff


@dataclass
class _Rest:
    failures: int
    until: float


class Lanes:
    """The lanes of one courier; safe for its threads."""

    def __init__(self, backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff
        self._clock = clock
        self._busy: set[str] = set()
        self._resting: dict[str, _Rest] = {}
        self._lock = threading.Lock()

    @contextmanager
    def choosing(self) -> Iterator[list[str]]:
        """The lanes from which no message may be taken now. While the block lasts, no other thread chooses."""
        with self._lock:
            now = self._clock()
            resting = {lane for lane, rest in self._resting.items() if rest.until > now}
            yield sorted(self._busy | resting)

    def enter(self, lane: str | None) -> None:
        """A message of this lane is under way; to be called while ``choosing``."""
        if lane is not None:
            self._busy.add(lane)

    def leave(self, lane: str | None, *, has_failed: bool) -> None:
        """It is no longer; after a success the lane's failures are forgotten."""
        if lane is None:
            return
        with self._lock:
            self._busy.discard(lane)
            rest = self._resting.pop(lane, None)
            if has_failed:
                failures = rest.failures + 1 if rest else 1
                self._resting[lane] = _Rest(failures, self._clock() + self._backoff.seconds(failures))
