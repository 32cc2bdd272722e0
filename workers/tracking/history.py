"""All that a run has logged, through all of its attempts, in one file on the node."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ibllm_core.contract.history import Entry, Known, entries_of
from ibllm_core.contract.run_spec import AttemptSpec

log = logging.getLogger(__name__)


class History:
    """An append-only list of steps and tags; nothing it does waits for anything but the local disk."""

    def __init__(
        self, folder: Path, spec: AttemptSpec, *, saved: bytes = b"", step: int = -1, resumed_from: str = "nothing"
    ) -> None:
        """Begin anew, or go on from a checkpoint at ``step`` that holds ``saved`` and is named ``resumed_from``.

        Of ``saved`` stays what is not after ``step``: this attempt makes those steps again. ``resumed_from`` becomes
        the tag ``ibllm.attempt.<n>.resumed_from``, and the attempt's first entry.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{spec.attempt_id}.jsonl"
        self.attempt = spec.attempt_number
        self.wake = threading.Event()  # set when what is here should be published at once
        self._known = Known()
        self._lock = threading.Lock()
        self._file = self.path.open("wb", buffering=0)
        self._size = 0
        self._unwritten = b""
        for entry in entries_of(saved):
            if not entry.metrics or entry.step <= step:
                self._append(entry)
        self.tag(f"ibllm.attempt.{self.attempt}.resumed_from", resumed_from)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record values of a step. A metric's steps only grow: one that is there already stays as it is."""
        self._append(Entry(attempt=self.attempt, time_ms=_now(), step=step, metrics=dict(metrics)))

    def tag(self, name: str, value: str) -> None:
        """Record a tag of the MLflow run; a later value replaces an earlier one."""
        self._append(Entry(attempt=self.attempt, time_ms=_now(), tags={name: value}))

    def to_bytes(self) -> bytes:
        """Everything up to now as JSON Lines, for a checkpoint; what is in it gets published at once, too."""
        with self._lock:
            size, rest = self._size, self._unwritten
        self.wake.set()
        return self.read(0, size) + rest

    def rows(self) -> list[dict[str, float]]:
        """A row of values for each step, for a table; ``step`` comes first."""
        rows: dict[int, dict[str, float]] = {}
        for entry in entries_of(self.to_bytes()):
            if entry.metrics:
                rows.setdefault(entry.step, {"step": entry.step}).update(entry.metrics)
        return list(rows.values())

    @property
    def size(self) -> int:
        """Bytes that were recorded."""
        with self._lock:
            return self._size + len(self._unwritten)

    def read(self, start: int, count: int) -> bytes:
        """Bytes of the file."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(count)

    def sync(self) -> None:
        """Make the file outlive the machine's loss of power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let the file go; recording ends."""
        self._file.close()

    def _append(self, entry: Entry) -> None:
        with self._lock:
            new = self._known.unknown(entry)
            if new is None:
                return
            self._known.add(new)
            self._unwritten += new.to_line()
            try:
                written = self._file.write(self._unwritten) or 0
            except OSError as error:  # a full disk must not end a training; the next entry tries again
                log.warning("%s cannot be written, %d bytes wait in memory: %s", self.path, len(self._unwritten), error)
                return
            self._size += written
            self._unwritten = self._unwritten[written:]


def _now() -> int:
    return time.time_ns() // 1_000_000
