"""A real MLflow server on SQLite, that can be killed, hung and brought back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

START_SECONDS = 120


@dataclass
class MlflowServer:
    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.url)

    def start(self) -> None:
        """Serve what the folder holds; returns when it answers."""
        self._process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "mlflow"),
                "server",
                "--host=127.0.0.1",
                f"--port={self.port}",
                "--workers=1",
                f"--backend-store-uri=sqlite:///{self.folder / 'mlflow.db'}",
                f"--artifacts-destination={self.folder / 'artifacts'}",
            ],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=self.folder,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "MLflow does not start"
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two looks at the condition

    def kill(self) -> None:
        """As a lost machine: nothing is finished."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._process = None

    def hang(self) -> None:
        """Take connections, and answer nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Carry out what came while it hung."""
        self._signal(signal.SIGCONT)

    def runs(self, run_id: str) -> list[Run]:
        """MLflow's runs of one of ours."""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, f"tags.`ibllm.run_id` = '{run_id}'"))

    def points(self, mlflow_run_id: str, name: str) -> list[tuple[int, float, int]]:
        """Step, value and time of all points of a metric."""
        history: list[Metric] = self.client.get_metric_history(mlflow_run_id, name)
        return sorted((point.step, point.value, point.timestamp) for point in history)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


@contextmanager
def running_mlflow(folder: Path) -> Iterator[MlflowServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = MlflowServer(folder, port)
    server.start()
    try:
        yield server
    finally:
        if server._process:
            server.kill()
