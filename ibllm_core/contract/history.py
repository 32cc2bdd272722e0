"""What a run logs, as lines of JSON: workers write them, the service copies them to MLflow."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Metrics of a step, or tags of the run; ``time_ms`` is when it was logged, in milliseconds since 1970.

    The time is part of the entry and never made anew: MLflow takes a point of the same metric, step, time and value
    for the one that it has, so that sending an entry again changes nothing.
    """

    attempt: int
    time_ms: int
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def to_line(self) -> bytes:
        """One line of JSON with its newline. JSON has no NaN and no infinity: they become the strings nan and inf."""
        value: dict[str, Any] = {"attempt": self.attempt, "time": self.time_ms}
        if self.metrics:
            value |= {"step": self.step, "metrics": {name: _writable(number) for name, number in self.metrics.items()}}
        if self.tags:
            value["tags"] = self.tags
        return json.dumps(value).encode() + b"\n"


def entries_of(lines: bytes) -> Iterator[Entry]:
    """The entries of JSON Lines, in their order."""
    for line in lines.splitlines():
        value = json.loads(line)
        yield Entry(
            attempt=value["attempt"],
            time_ms=value["time"],
            step=value.get("step", 0),
            metrics={name: float(number) for name, number in value.get("metrics", {}).items()},
            tags=value.get("tags", {}),
        )


class Known:
    """What a history holds already: the last step of each metric, the value of each tag."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._tags: dict[str, str] = {}

    def unknown(self, entry: Entry) -> Entry | None:
        """What of ``entry`` is new: a metric's step that is there stands, whoever logged it."""
        metrics = {name: value for name, value in entry.metrics.items() if entry.step > self._steps.get(name, -1)}
        tags = {name: value for name, value in entry.tags.items() if self._tags.get(name) != value}
        return replace(entry, metrics=metrics, tags=tags) if metrics or tags else None

    def add(self, entry: Entry) -> None:
        """Remember an entry."""
        self._steps.update(dict.fromkeys(entry.metrics, entry.step))
        self._tags.update(entry.tags)


def _writable(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)
