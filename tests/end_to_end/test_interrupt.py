"""Ctrl-C, and a port that somebody else has: one sentence, no process left, and the next `ibllm up` works."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.local.stack import Stack
from tests.end_to_end.conftest import Embedded


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Embedded]:
    made = Embedded(Stack(tmp_path / "home"))
    yield made
    made.stack.down()


def test_ctrl_c_stops_what_was_started_and_the_next_up_works(fresh: Embedded) -> None:
    environment = {**os.environ, "IBLLM_HOME": str(fresh.stack.home.root)}
    command = [sys.executable, "-m", "orchestrator.cli.main", "up"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert "postgres" in process.stdout.readline()  # in the middle: others are still starting
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert "interrupted" in said
    assert fresh.processes() == []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", fresh.stack.home.ports()["mlflow"]))
        taken.listen()
        refused = fresh.command("up")
    assert refused.returncode == 1
    assert "of mlflow is taken by" in refused.stderr
    assert fresh.processes() == []
    assert fresh.command("up").returncode == 0
    assert fresh.command("down").returncode == 0
    assert fresh.processes() == []
