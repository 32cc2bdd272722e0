"""Whether a request that failed is sent again, and when."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from orchestrator.client.errors import ClientError
from orchestrator.outbox.backoff import Backoff

BACKOFF = Backoff(first=0.5, longest=8.0)
LONGEST_WAIT = 120.0  # who is told to wait for longer should know, and decide
NOTHING_WAS_DONE = (429, 503)  # whatever the request was to do


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A try that failed: with a status, or with none, since no answer came to what may or may not have been sent."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    was_sent: bool = True


def wait_before_retry(failure: Failure, *, tries: int, is_repeatable: bool) -> float | None:
    """Seconds to wait after so many tries, or None where another one must not or need not be made.

    ``is_repeatable`` says that doing it twice is doing it once.
    """
    advice = failure.headers.get("x-should-retry")
    if advice == "false" or (advice != "true" and not _may_help(failure, is_repeatable)):
        return None
    told = _told_wait(failure.headers)
    if told is None:
        return BACKOFF.seconds(tries)
    return told if told <= LONGEST_WAIT else None


class Patience:
    """For streams and polls that outlive a broken connection: waits between tries, until it is used up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failures = 0
        self._since = 0.0

    def restore(self) -> None:
        """It went well again."""
        self._failures = 0

    def wait(self, error: ClientError) -> None:
        """Wait before the next try; raises ``error`` where it has gone wrong for too long."""
        now = time.monotonic()
        self._since = self._since if self._failures else now
        self._failures += 1
        if now - self._since > self._seconds:
            raise error
        time.sleep(BACKOFF.seconds(self._failures))


def _may_help(failure: Failure, is_repeatable: bool) -> bool:
    if failure.status is None:
        return is_repeatable or not failure.was_sent
    return failure.status in NOTHING_WAS_DONE or (failure.status >= 500 and is_repeatable)


def _told_wait(headers: Mapping[str, str]) -> float | None:
    """What the service asks for, in seconds or as a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        until = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
