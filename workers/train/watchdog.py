"""A rank that makes no progress says where it stands, and ends; the gang is then started again from its checkpoint."""

from __future__ import annotations

import faulthandler
import statistics
import sys
import time
from collections import deque
from types import TracebackType
from typing import TextIO

MIN_SECONDS, MEDIANS = 60.0, 5.0
LOADING_SECONDS = 1800.0  # a cold node fetches a large base in this time
SAVING_SECONDS = 3600.0  # a save waits for one that is under way, and both for a store that is away
REMEMBERED = 100


class Watchdog:
    """Context manager around a rank's work.

    The clock is a thread of C code, which runs even where Python's lock is held by what hangs. When it rings, the
    stacks of all threads go to ``file`` and the process ends with status 1. Every rank has one: where one rank hangs,
    the others wait for it in a collective, and ring at about the same time with their own stacks.
    """

    def __init__(self, file: TextIO | None = None, *, min_seconds: float = MIN_SECONDS) -> None:
        self._file = file or sys.__stderr__
        self._min_seconds = min_seconds
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        self._last: float | None = None

    def __enter__(self) -> Watchdog:
        self.allow(LOADING_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()

    def allow(self, seconds: float) -> None:
        """Something else than a step comes, which may take ``seconds``."""
        self._last = None
        self._arm(seconds)

    def step(self) -> None:
        """A step ended, or the first one begins."""
        now = time.monotonic()
        if self._last is not None:
            self._steps.append(now - self._last)
        self._last = now
        self._arm(self.limit)

    @property
    def limit(self) -> float:
        """Seconds that a step may take: 60, or 5 median steps where that is more; a first step loads and compiles."""
        if not self._steps:
            return 10 * self._min_seconds
        return max(self._min_seconds, MEDIANS * statistics.median(self._steps))

    def _arm(self, seconds: float) -> None:
        assert self._file is not None
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._file)
