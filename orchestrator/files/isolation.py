"""A check in a process of its own: a file that breaks its reader breaks nothing else, and can be left at any moment."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess

from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from orchestrator.files.check import Task, Verdict, verdict_of

PRELOADED = ["orchestrator.files.__main__", "pyarrow.parquet", "tokenizers"]
MEMORY_BYTES = 4 << 30
MAX_SECONDS = 6 * 3600.0  # 100 GB take about an hour; a reader that never comes back must not stay for good


@dataclass(frozen=True)
class Died:
    """That a check ended without a verdict; ``signal`` is what ended it, or None."""

    signal: int | None

    @property
    def was_asked_to(self) -> bool:
        """Whether somebody stops the whole service."""
        return self.signal in (signal.SIGTERM, signal.SIGINT)


def warm_up() -> None:
    """Import what checks need, once: afterwards each begins within milliseconds."""
    process = _context().Process(target=_nothing)
    process.start()
    process.join()


class RunningCheck:
    """One check under way."""

    def __init__(self, settings: StorageSettings, task: Task) -> None:
        self.task = task
        self._receiver, sender = _context().Pipe(duplex=False)
        self._process: ForkServerProcess = _context().Process(target=_check, args=(sender, settings, task), daemon=True)
        self._process.start()
        sender.close()
        self._started = time.monotonic()

    @property
    def news(self) -> Connection:
        """Can be read as soon as the check has ended, however it did."""
        return self._receiver

    def outcome(self) -> Verdict | Died | None:
        """What came of it; None while it goes on."""
        if self._receiver.poll():
            try:
                verdict: Verdict = self._receiver.recv()
            except EOFError:
                self._process.join()
                code = self._process.exitcode or 0
                return Died(-code if code < 0 else None)
            self.stop()
            return verdict
        if time.monotonic() - self._started > MAX_SECONDS:
            self.stop()
            return Verdict(problem=f"reading it takes more than {MAX_SECONDS / 3600:.0f} hours: split the file")
        return None

    def stop(self) -> None:
        """End it at once; it has written nothing."""
        self._process.kill()
        self._process.join()
        self._receiver.close()


@cache
def _context() -> ForkServerContext:
    """Children of a process that has everything imported and nothing else: each begins clean."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _nothing() -> None:
    pass


def _check(sender: Connection, settings: StorageSettings, task: Task) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    sender.send(verdict_of(ObjectStore(settings), task))
