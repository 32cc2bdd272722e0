"""The command against the service: in this process, or as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import run
from orchestrator.client import Client
from tests.orchestrator.api.conftest import database, live, postgres, running, service
from tests.orchestrator.api.service import API_KEY, Live
from tests.orchestrator.client.scripted import ScriptedServer, scripted_server
from tests.orchestrator.client.work import Work

__all__ = ["database", "live", "postgres", "running", "service"]
OF_USERS = ("IBLLM_URL", "IBLLM_API_KEY", "IBLLM_HOME", "OPENAI_BASE_URL", "OPENAI_API_KEY")
SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Ibllm = Callable[..., Ended]


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has not logged in anywhere, with a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in OF_USERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ibllm(capsysbinary: pytest.CaptureFixture[bytes]) -> Ibllm:
    """Run the command in this process."""

    def ended(*words: str | Path) -> Ended:
        capsysbinary.readouterr()
        code = run([str(word) for word in words])
        captured = capsysbinary.readouterr()
        return Ended(code, captured.out.decode(), captured.err.decode())

    return ended


@pytest.fixture
def at(live: Live, monkeypatch: pytest.MonkeyPatch) -> Live:
    """The service that the environment names, with the operator's key."""
    monkeypatch.setenv("IBLLM_URL", live.base_url)
    monkeypatch.setenv("IBLLM_API_KEY", API_KEY)
    return live


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with Client(live.base_url, API_KEY) as client:
        yield client


@pytest.fixture(scope="package")
def work(database: str) -> Work:
    return Work(database)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server that the environment names."""
    with scripted_server() as server:
        monkeypatch.setenv("IBLLM_URL", server.url)
        monkeypatch.setenv("IBLLM_API_KEY", "a-key")
        yield server


def command(*words: str | Path) -> list[str]:
    """The words that start the command in a process of its own."""
    return [sys.executable, "-m", "orchestrator.cli.main", *map(str, words)]


def in_process(*words: str | Path, given: str | None = None, **environment: str) -> Ended:
    """Run the command in a process of its own, as a shell does."""
    variables: Mapping[str, str] = {**os.environ, **environment}
    ended = subprocess.run(
        command(*words), env=variables, input=given, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
