"""The embedded stack as a whole: up, down, and what is known of it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from orchestrator.db.session import migrate
from orchestrator.local import parts as all_parts
from orchestrator.local.errors import StackError
from orchestrator.local.home import Home, check_port
from orchestrator.local.parts import Part
from orchestrator.local.supervisor import Supervisor

DATABASES = ("ibllm", "mlflow")
POLL_SECONDS = 0.2
LEFTOVER_SECONDS = 5.0
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """A line of ``ibllm status``; ``memory`` in bytes, with all child processes."""

    name: str
    address: str
    pid: int | None
    state: str
    healthy: bool
    memory: int


class Stack:
    """The parts below one data folder."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root.resolve())

    @property
    def is_up(self) -> bool:
        """Whether the supervisor of this data folder runs."""
        return self.home.root.exists() and Supervisor(self.home).is_running()

    def up(self, say: Say) -> None:
        """Start what does not run, and return when every part is healthy.

        Raises ``StackError`` with a remedy. What fails or is interrupted is stopped again, unless it ran before.
        """
        self.home.prepare()
        with self._locked():
            was_up = self.is_up
            try:
                self._start(say)
            except BaseException:
                if not was_up:
                    say("stopping what was started ...")
                    self._stop_all()
                raise

    def down(self) -> None:
        """Stop everything and leave no process; data stays. Harmless where nothing runs."""
        if self.home.root.exists():
            with self._locked():
                self._stop_all()

    def status(self) -> list[PartStatus]:
        """What each part does now; ``StackError`` where no stack was ever made here."""
        if not self.home.ports_file.exists():
            raise StackError(f"there is no stack in {self.home.root}: start one with `ibllm up`")
        supervisor = Supervisor(self.home)
        running = supervisor.is_running()
        return [self._status_of(part, supervisor if running else None) for part in all_parts.build(self.home)]

    def _status_of(self, part: Part, supervisor: Supervisor | None) -> PartStatus:
        stopped = {"statename": "STOPPED", "pid": 0}
        record: dict[str, Any] = supervisor.state(part.name) if supervisor else stopped
        return PartStatus(
            name=part.name,
            address=part.address,
            pid=record["pid"] or None,
            state=record["statename"].lower(),
            healthy=bool(record["pid"]) and part.healthy(),
            memory=_memory_of(record["pid"]),
        )

    def _start(self, say: Say) -> None:
        parts = all_parts.build(self.home)
        supervisor = Supervisor(self.home)
        if not supervisor.is_running():
            self._end_leftovers()
            for part in parts:
                for port in part.ports:
                    check_port(part.name, port, self.home.ports_file)
            _init_database(self.home)
            (self.home.root / "s3").mkdir(exist_ok=True)
            supervisor.start(parts)
        started = time.monotonic()
        ready: set[str] = set()
        begun: set[str] = set()
        while len(ready) < len(parts):
            for part in parts:
                if part.name in ready or not ready.issuperset(part.needs):
                    continue
                if part.name not in begun:
                    supervisor.start_part(part.name)
                    begun.add(part.name)
                if part.healthy():
                    if part.name == "postgres":
                        _make_databases(self.home)
                    ready.add(part.name)
                    say(f"{part.name:<10} ready   {part.address:<28} {time.monotonic() - started:5.1f} s")
                else:
                    self._refuse_dead(part, supervisor, started)
            time.sleep(POLL_SECONDS)

    def _refuse_dead(self, part: Part, supervisor: Supervisor, started: float) -> None:
        state = supervisor.state(part.name)
        log = self.home.logs / f"{part.name}.log"
        if state["statename"] in ("FATAL", "UNKNOWN"):
            raise StackError(f"{part.name} does not start ({state['spawnerr'] or 'it exits at once'}): see {log}")
        if time.monotonic() - started > part.start_seconds * (1 + len(part.needs)):
            raise StackError(f"{part.name} is not healthy after {time.monotonic() - started:.0f} s: see {log}")

    def _stop_all(self) -> None:
        supervisor = Supervisor(self.home)
        if supervisor.is_running():
            supervisor.stop()
        self._end_leftovers()

    def _end_leftovers(self) -> None:
        """End processes of this stack that no supervisor owns any more, such as workers of a killed Ray."""
        left = [process for process in psutil.process_iter() if _belongs_to(process, self.home)]
        for process in left:
            _quietly(process.terminate)
        _, alive = psutil.wait_procs(left, timeout=LEFTOVER_SECONDS)
        for process in alive:
            _quietly(process.kill)
        psutil.wait_procs(alive, timeout=LEFTOVER_SECONDS)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.home.root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError("another `ibllm up` or `ibllm down` is at work here: wait for it to end") from error
            yield


def _belongs_to(process: psutil.Process, home: Home) -> bool:
    """Whether a process carries the stack's mark; the command that asks does not."""
    try:
        return process.environ().get(all_parts.STACK_MARK) == str(home.root)
    except (psutil.Error, OSError):
        return False


def _quietly(end: Callable[[], None]) -> None:
    try:
        end()
    except psutil.NoSuchProcess:
        return


def _memory_of(pid: int) -> int:
    """Proportional memory of a process and its children, which counts shared pages once."""
    if not pid:
        return 0
    total = 0
    try:
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_full_info().pss
    except psutil.Error:
        return total
    return total


def _init_database(home: Home) -> None:
    """Make PostgreSQL's data folder, once."""
    folder = home.root / "postgres"
    if (folder / "PG_VERSION").exists():
        return
    folder.mkdir(exist_ok=True)
    password_file = home.root / "postgres-password"
    password_file.touch(mode=0o600)
    password_file.write_text(home.credentials()["postgres_password"])
    if os.getuid() == 0:
        os.chown(folder, all_parts.NOBODY, all_parts.NOBODY)
        os.chown(password_file, all_parts.NOBODY, all_parts.NOBODY)
    command = [
        *all_parts.as_postgres_user(),
        str(all_parts.postgres_binaries() / "initdb"),
        f"--pgdata={folder}",
        "--username=ibllm",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    password_file.unlink()
    if result.returncode:
        raise StackError(f"PostgreSQL's data folder {folder} could not be made: {result.stderr.strip()}")


def _make_databases(home: Home) -> None:
    with psycopg.connect(all_parts.database_url(home, "postgres"), autocommit=True) as connection:
        known = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for name in DATABASES:
            if name not in known:
                connection.execute(f'CREATE DATABASE "{name}"')
    migrate(all_parts.service_environment(home)["IBLLM_DATABASE_URL"])
