"""A gang's world: a real Ray of several nodes, a real object store, an ear where the service's is, real drivers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster
from safetensors.torch import load
from torch import Tensor

from ibllm_core.contract import layout
from ibllm_core.contract.history import Entry, entries_of
from ibllm_core.contract.run_spec import CheckpointReport, EventReport, Outcome, Progress, TrainSpec
from ibllm_core.errors import StorageError
from ibllm_core.storage import ObjectStore
from tests.ibllm_core.formats.object_store import running_store
from tests.workers.train import tiny

WAIT_SECONDS = 120.0
NODE_BYTES = 100 << 20


class Ear:
    """Stands where the service is, over real HTTP: keeps what attempts say, and may be away."""

    def __init__(self) -> None:
        self.progress: list[tuple[float, Progress]] = []
        self.events: list[EventReport] = []
        self.checkpoints: list[CheckpointReport] = []
        self.outcomes: list[Outcome] = []
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def step(self) -> int:
        """The newest step that was told."""
        return max((said.step for _, said in self.progress), default=0)

    @property
    def messages(self) -> list[str]:
        """The events' words."""
        return [event.message for event in self.events]

    def listen(self) -> None:
        """Be there (again)."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def leave(self) -> None:
        """Refuse connections."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """Begin a new story."""
        self.progress.clear()
        self.events.clear()
        self.checkpoints.clear()
        self.outcomes.clear()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                ear._hear(self.path, body)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        return Handler

    def _hear(self, path: str, body: bytes) -> None:
        if path.endswith("/progress"):
            self.progress.append((time.monotonic(), Progress.model_validate_json(body)))
        elif path.endswith("/events"):
            self.events.append(EventReport.model_validate_json(body))
        elif path.endswith("/checkpoints"):
            self.checkpoints.append(CheckpointReport.model_validate_json(body))
        else:
            self.outcomes.append(Outcome.model_validate_json(body))


class Attempt:
    """A driver, started as Ray's job starts it."""

    def __init__(self, world: World, spec: TrainSpec) -> None:
        self.spec, self.world = spec, world
        key = layout.spec(spec.job_id, spec.stage, spec.attempt_number)
        world.store.put(key, spec.model_dump_json().encode())
        self.log_path = world.folder / f"{spec.attempt_id}.log"
        self.started = time.monotonic()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers.entry", key],
                env={**os.environ, "RAY_ADDRESS": world.cluster.address},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """All that driver and ranks have printed."""
        return self.log_path.read_text(errors="replace")

    @property
    def gangs(self) -> list[int]:
        """The processes of all first ranks that came as far as the first step, oldest first."""
        return [int(pid) for pid in re.findall(r"pid=(\d+)[^\n]*to the first step", self.log)]

    def outcome(self, seconds: float = WAIT_SECONDS) -> Outcome:
        """How it ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"no end within {seconds:.0f} s:\n{self.log[-6000:]}") from None
        assert self.world.ear.outcomes, self.log[-6000:]
        return self.world.ear.outcomes[-1]

    def until(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> float:
        """Wait for a condition while the driver lives; returns when it came true."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it did not come true:\n{self.log[-6000:]}")
            time.sleep(0.02)
        return time.monotonic()


class World:
    """What drivers find."""

    def __init__(self, folder: Path, store: ObjectStore, cluster: Cluster) -> None:
        self.folder, self.store, self.cluster, self.ear = folder, store, cluster, Ear()

    @contextmanager
    def store_away(self) -> Iterator[None]:
        """The object store's process is killed, and is there again afterwards, with its data."""
        process = next(p for p in psutil.Process().children() if p.name() == "weed" and p.is_running())
        command, environment = process.cmdline(), process.environ()
        process.kill()
        process.wait()
        try:
            yield
        finally:
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self._wait_for_store()

    def _wait_for_store(self) -> None:
        for _ in range(300):
            try:
                self.store.list("none")
            except StorageError:
                time.sleep(0.1)
            else:
                return

    def start(self, job: str, **changes: Any) -> Attempt:
        """Start an attempt of a job of its own, which is ``tiny.small`` but for the changes."""
        number = changes.pop("attempt_number", 1)
        self.ear.forget()
        return Attempt(
            self,
            tiny.small(
                job_id=job,
                run_id=f"{job}-stage1",
                attempt_id=f"{job}-stage1-{number}",
                attempt_number=number,
                adapter_prefix=f"models/{job}",
                service_url=self.ear.url,
                **changes,
            ),
        )

    def checkpoints(self, job: str) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        keys = self.store.list(f"{layout.checkpoints(job, 'stage1')}/")
        return sorted(int(found[1]) for key in keys if (found := re.search(r"step-(\d+)/MANIFEST", key)))

    def weights(self, job: str) -> dict[str, Tensor]:
        """Weights and moments of the newest checkpoint."""
        prefix = layout.checkpoint(job, "stage1", self.checkpoints(job)[-1])
        files = [key for key in self.store.list(f"{prefix}/") if key.endswith(".safetensors")]
        return {name: tensor for key in files for name, tensor in load(self.store.get(key)).items()}

    def logged(self, job: str) -> list[Entry]:
        """All that the run logged, over its attempts."""
        parts = [key for key in self.store.list(f"{layout.run(job, 'stage1')}/history/") if key.endswith(".jsonl")]
        return [entry for part in sorted(parts) for entry in entries_of(self.store.get(part))]

    def losses(self, job: str) -> dict[int, float]:
        """Training losses by step; a step that was logged twice is an error."""
        found = [(e.step, e.metrics["train/loss"]) for e in self.logged(job) if "train/loss" in e.metrics]
        assert len(dict(found)) == len(found)
        return dict(found)


def ranks() -> list[psutil.Process]:
    """The processes of all gangs' ranks on this machine, oldest first."""
    titled = [p for p in psutil.process_iter(["cmdline", "create_time"]) if "RayTrainWorker" in str(p.info["cmdline"])]
    return sorted(titled, key=lambda process: process.info["create_time"])


@contextmanager
def world(folder: Path, *cpus: int) -> Iterator[World]:
    """A store with a tiny base and data, and a Ray node for each number of CPUs."""
    with running_store(folder) as running, _environment(folder, running.settings), _cluster(cpus) as cluster:
        store = ObjectStore(running.settings)
        tiny.furnish(store, folder)
        made = World(folder, store, cluster)
        try:
            yield made
        finally:
            made.ear.leave()
            for process in psutil.Process().children():
                if process.name() == "weed":
                    process.kill()


@contextmanager
def _environment(folder: Path, settings: Any) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {
        "IBLLM_S3_ENDPOINT": settings.endpoint,
        "IBLLM_S3_BUCKET": settings.bucket,
        "IBLLM_S3_ACCESS_KEY": settings.access_key,
        "IBLLM_S3_SECRET_KEY": settings.secret_key,
        "IBLLM_CACHE": str(folder / "cache"),
        "MLFLOW_TRACKING_URI": "http://none",
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "IBLLM_STEP_PATIENCE": "10",
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _cluster(cpus: tuple[int, ...]) -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        for number in cpus:
            cluster.add_node(num_cpus=number, object_store_memory=NODE_BYTES)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
