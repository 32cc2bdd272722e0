"""One embedded stack for all end-to-end tests, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from orchestrator.client import Client
from orchestrator.local.parts import STACK_MARK, service_environment
from orchestrator.local.stack import Stack

COMMAND_SECONDS = 600
OF_USERS = ("IBLLM_URL", "OPENAI_BASE_URL")  # who have a service of their own


@dataclass(frozen=True)
class Embedded:
    """The stack, and the ``ibllm`` command for it."""

    stack: Stack

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in OF_USERS}
        environment |= {"IBLLM_HOME": str(self.stack.home.root), "COLUMNS": "200", "XDG_CONFIG_HOME": "/none"}
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli.main", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )

    @property
    def environment(self) -> dict[str, str]:
        return service_environment(self.stack.home)

    @property
    def client(self) -> Client:
        return Client(self.environment["IBLLM_SERVICE_URL"], self.environment["IBLLM_API_KEY"])

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this stack."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            home = process.environ().get(STACK_MARK)
            return home == str(self.stack.home.root) and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):  # it ended while we looked
            return False


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    running = Embedded(Stack(tmp_path_factory.mktemp("stack") / "home"))
    yield running
    running.stack.down()


@pytest.fixture(scope="session")
def demo(embedded: Embedded) -> subprocess.CompletedProcess[str]:
    """A demo on a small part of the data, which also starts the stack."""
    result = embedded.command("demo", "--small")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result
