"""A run's history in the object store: one log for all attempts, in which no step of a metric stands twice."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from types import TracebackType

from ibllm_core.contract import layout
from ibllm_core.contract.history import Known, entries_of
from ibllm_core.contract.run_spec import AttemptSpec
from ibllm_core.errors import ObjectExistsError, ObjectMissingError, StorageError
from ibllm_core.storage import Store
from workers.tracking.history import History

# A hundredth of the run's age, so that a day makes 1,500 parts and a minute's demo is seen as it goes.
MIN_SECONDS, MAX_SECONDS, SHARE_OF_AGE = 2.0, 60.0, 0.01
RETRY_MAX_SECONDS = 30.0
CLOSE_PATIENCE_SECONDS = 60.0
MAX_PART_BYTES = 4 << 20
log = logging.getLogger(__name__)


class SupersededError(Exception):
    """A later attempt writes the log."""


class Publisher:
    """Context manager around an attempt: a thread appends to the run's log what the history has and the log lacks.

    A part is written conditionally under the number after the last one. Who finds it taken reads it first, and so
    knows all that stands before its own words: two processes that believe to be the run cannot both log a step.
    An attempt that finds a later one there is silent from then on.
    """

    def __init__(self, history: History, store: Store, spec: AttemptSpec, run_name: str) -> None:
        self._history = history
        self._store = store
        self._spec = spec
        self._run_name = run_name
        self._known = Known()
        self._has_read_log = False
        self._part = 0
        self._offset = 0
        self._started = time.monotonic()
        self._moved = threading.Condition()
        self._closing = False
        self._abandoned = False
        self._superseded = False
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        complete = self.flush(CLOSE_PATIENCE_SECONDS)
        self._abandoned = True
        self._history.wake.set()
        if complete:
            self._thread.join()
            self._history.close()
            self._history.path.unlink()
        else:
            log.error("the object store did not take all metrics; they remain in %s", self._history.path)

    def flush(self, seconds: float) -> bool:
        """Wait until the log has what is in the history now; false where that took longer, or is not ours to write."""
        size = self._history.size
        self._history.wake.set()
        with self._moved:
            self._moved.wait_for(lambda: self._offset >= size or self._superseded, timeout=seconds)
            return self._offset >= size

    def _run(self) -> None:
        failures = 0
        while not self._abandoned:
            try:
                self._publish()
                failures = 0
                seconds = min(max(MIN_SECONDS, SHARE_OF_AGE * (time.monotonic() - self._started)), MAX_SECONDS)
            except StorageError as error:
                failures += 1
                seconds = min(2.0**failures, 1.0 if self._closing else RETRY_MAX_SECONDS)
                log.warning("the object store cannot be reached, metrics wait in %s: %s", self._history.path, error)
                self._history.sync()
            except SupersededError:
                log.error("a later attempt of %s is running: this one logs no more", self._spec.run_id)
                with self._moved:
                    self._superseded = True
                    self._moved.notify_all()
                return
            self._history.wake.wait(seconds)
            self._history.wake.clear()

    def _publish(self) -> None:
        if not self._has_read_log:
            self._catch_up()
            self._has_read_log = True
        while chunk := self._whole_lines():
            while body := self._missing(chunk):
                try:
                    self._store.put(self._key(), body, only_new=True)
                except ObjectExistsError:  # perhaps this very body, in a try whose answer was lost
                    self._catch_up()
                else:
                    self._take(body)
            with self._moved:
                self._offset += len(chunk)
                self._moved.notify_all()

    def _whole_lines(self) -> bytes:
        """What is next in the history, without a line that is being written."""
        chunk = self._history.read(self._offset, MAX_PART_BYTES)
        return chunk[: chunk.rfind(b"\n") + 1]

    def _catch_up(self) -> None:
        """Read the parts that others wrote."""
        while True:
            try:
                body = self._store.get(self._key())
            except ObjectMissingError:
                return
            self._take(body)
            if any(entry.attempt > self._spec.attempt_number for entry in entries_of(body)):
                raise SupersededError

    def _missing(self, chunk: bytes) -> bytes:
        """What the log lacks of it; of a tag that changes on the way the last value, which is the one that stays."""
        entries = list(entries_of(chunk))
        last = {name: value for entry in entries for name, value in entry.tags.items()}
        kept = (replace(e, tags={n: value for n, value in e.tags.items() if last[n] == value}) for e in entries)
        return b"".join(new.to_line() for new in map(self._known.unknown, kept) if new)

    def _take(self, body: bytes) -> None:
        for entry in entries_of(body):
            self._known.add(entry)
        self._part += 1

    def _key(self) -> str:
        return layout.history(self._spec.job_id, self._run_name, self._part)
