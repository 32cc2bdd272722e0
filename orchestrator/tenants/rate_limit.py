"""Requests a minute of a project: a token bucket in each API process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

MAX_BUCKETS = 100_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """Lets a project send its minute's requests at once, and refills evenly.

    Two API processes each allow the whole rate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, name: str, per_minute: int) -> float:
        """Seconds until the next request of ``name`` is let through; 0 lets this one."""
        now = self._clock()
        with self._lock:
            if len(self._buckets) > MAX_BUCKETS:  # all that are full again hold nothing to remember
                self._buckets = {n: b for n, b in self._buckets.items() if now - b.at < 60}
            bucket = self._buckets.setdefault(name, _Bucket(float(per_minute), now))
            bucket.tokens = min(float(per_minute), bucket.tokens + (now - bucket.at) * per_minute / 60)
            bucket.at = now
            if bucket.tokens >= 1:
                bucket.tokens -= 1
                return 0.0
            return (1 - bucket.tokens) * 60 / per_minute
