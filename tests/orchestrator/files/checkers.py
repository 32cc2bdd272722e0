"""Checkers as processes, started as an installation starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.ibllm_core.formats.object_store import RunningStore
from tests.orchestrator.api.service import settings_of

WAIT_SECONDS = 60


@dataclass(frozen=True)
class CheckerProcess:
    process: subprocess.Popen[bytes]
    heartbeat: Path

    def kill(self) -> None:
        """As the kernel or a lost node does: no word, and everything that it started goes too."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        for process in (psutil.Process(self.process.pid), *children):
            process.kill()
        self.process.wait()

    def kill_check(self) -> None:
        """Only the process that reads a file, as soon as there is one."""
        until(lambda: bool(self._checks()))
        self._checks()[0].kill()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_SECONDS) == 0

    def _checks(self) -> list[psutil.Process]:
        """Grandchildren: a small server between forks them."""
        servers = psutil.Process(self.process.pid).children()
        return [p for server in servers for p in server.children() if p.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def running_checker(database: str, running: RunningStore, folder: Path) -> Iterator[CheckerProcess]:
    """A checker that has looked for work once."""
    heartbeat = folder / f"heartbeat-{time.monotonic_ns()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.files"],
        env={**os.environ, **settings_of(database, running), "IBLLM_CHECKER_HEARTBEAT": str(heartbeat)},
    )
    checker = CheckerProcess(process, heartbeat)
    try:
        until(heartbeat.exists)
        yield checker
    finally:
        if process.poll() is None:
            checker.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks at the condition
