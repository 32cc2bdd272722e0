"""A real PostgreSQL for a test package, started as the embedded stack starts it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from orchestrator.local.home import Home
from orchestrator.local.parts import build, database_url
from orchestrator.local.stack import _init_database

START_SECONDS = 60
NO_FLUSHING = ("-c", "fsync=off", "-c", "full_page_writes=off")  # nobody pulls the plug on a test


@dataclass(frozen=True)
class RunningPostgres:
    home: Home

    def new_database(self, name: str) -> str:
        """Make an empty database; returns its address for SQLAlchemy."""
        with psycopg.connect(database_url(self.home, "postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        return database_url(self.home, name).replace("postgresql://", "postgresql+psycopg://")

    def rename(self, name: str, new: str) -> None:
        """Rename a database that nobody is connected to."""
        with psycopg.connect(database_url(self.home, "postgres"), autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" RENAME TO "{new}"')  # type: ignore[arg-type]


@contextmanager
def running_postgres(folder: Path, *, is_durable: bool = False) -> Iterator[RunningPostgres]:
    """Serve databases out of ``folder``; a durable one flushes what it commits, as outside of tests."""
    home = Home(folder / "home")
    home.root.mkdir()
    _init_database(home)
    part = next(part for part in build(home) if part.name == "postgres")
    command = part.command if is_durable else [*part.command, *NO_FLUSHING]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not part.healthy():
            assert process.poll() is None, "PostgreSQL does not start"
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two looks at the condition
        yield RunningPostgres(home)
    finally:
        process.send_signal(signal.SIGINT)  # does not wait for clients to leave
        process.wait()
