"""A model server's world: a real Ray with a token, a real object store with a model in it, the service's way to it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter, AdapterHeader
from ibllm_core.bases.formats import open_source
from ibllm_core.contract import layout
from ibllm_core.contract.chat import ChatRequest
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import adapted_parameters
from ibllm_core.storage import ObjectStore, Store
from orchestrator.cluster.settings import RaySettings
from orchestrator.errors import ServiceError
from orchestrator.inference.disconnect import while_connected
from orchestrator.inference.gateway import Gateway, ServedModel
from orchestrator.inference.settings import ServingSettings
from tests.conftest import tiny_llama, word_tokenizer
from tests.ibllm_core.formats.object_store import running_store
from workers.import_base import upload

BASE, ENCODER, FEATURE_DIM, VOCABULARY = "tiny", "efficientnet-lite0", 1280, 19
CONTEXT = 8192
IDLE_SECONDS = 3.0
START_SECONDS = 120.0


def add_base(store: Store, folder: Path, name: str = BASE) -> str:
    """A base of two layers that knows the words of ``word_tokenizer``; returns the hash of its weights."""
    tiny_llama(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(upload(store, name, open_source(folder))["weights_sha256"])


def add_adapter(store: Store, folder: Path, prefix: str, base_sha256: str, seed: int, **header: object) -> None:
    """A stage-2 adapter of random weights, which differ from seed to seed."""
    made = AdapterHeader.model_validate(
        {
            "stage": "stage2",
            "config": {},
            "feature_dim": FEATURE_DIM,
            "vocab_size": VOCABULARY,
            "template": "short",
            "base": BASE,
            "base_sha256": base_sha256,
            "encoder": ENCODER,
            **header,
        }
    )
    llama = tiny_llama(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT)
    model = ImageBindLLM(llama, made.feature_dim, made.config, made.stage)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in adapted_parameters(model, made.stage):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    files.write(folder, Adapter(header=made, tensors=files.adapted_tensors(model, made)))
    store.upload_folder(prefix, folder, {"header": made.model_dump()})


@dataclass(frozen=True, kw_only=True)
class World:
    """``url`` is that of a small service whose models are ``first`` and ``second``, and ``gone`` without an adapter."""

    url: str
    settings: ServingSettings
    cluster: RaySettings
    ray: psutil.Process

    def replicas(self) -> list[psutil.Process]:
        """The processes that hold models."""
        return self._titled("ServeReplica:ibllm")

    def serve_processes(self) -> list[psutil.Process]:
        """Those that stay: Serve's controller and its proxy."""
        return [*self._titled("ServeController"), *self._titled("ProxyActor")]

    def applications(self) -> dict[str, str]:
        """Status of every application of the cluster, by its name."""
        answer = httpx.get(f"{self.cluster.dashboard_url}/api/serve/applications/", headers=self.cluster.headers)
        return {name: app["status"] for name, app in answer.json()["applications"].items()}

    def _titled(self, words: str) -> list[psutil.Process]:
        return [process for process in self.ray.children(recursive=True) if words in _title(process)]


def until(condition: Callable[[], object], seconds: float) -> float:
    """Wait for a condition; returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come true"
        time.sleep(0.05)  # between two looks at the condition
    return time.monotonic() - began


@contextmanager
def world() -> Iterator[World]:
    """Everything, started; a short folder, since Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="srv") as name, running_store(Path(name)) as running:
        folder = Path(name)
        store = ObjectStore(running.settings)
        sha256 = add_base(store, folder / "base")
        for number, model in enumerate(("first", "second")):
            add_adapter(store, folder / model, layout.model(model), sha256, number)
        token = folder / "token"
        token.write_text(secrets.token_hex(24))
        environment = {
            "IBLLM_S3_ENDPOINT": running.settings.endpoint,
            "IBLLM_S3_ACCESS_KEY": running.settings.access_key,
            "IBLLM_S3_SECRET_KEY": running.settings.secret_key,
            "IBLLM_CACHE": str(folder / "cache"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps Ray on 127.0.0.1
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with _ray(folder, environment) as (dashboard_url, ray):
            settings = ServingSettings(
                url=f"http://127.0.0.1:{_free_port()}",
                secret=secrets.token_hex(24),
                cpus=0,
                idle_seconds=IDLE_SECONDS,
                start_seconds=START_SECONDS,
            )
            cluster = RaySettings(dashboard_url=dashboard_url, token_path=token)
            with _service(settings, cluster) as url:
                yield World(url=url, settings=settings, cluster=cluster, ray=ray)


@contextmanager
def _ray(folder: Path, environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """A head without CPUs, as in the embedded stack when training holds them all."""
    port, dashboard, agent, client = (_free_port() for _ in range(4))
    command = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=0"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", "--dashboard-host=127.0.0.1"),
        *(
            f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
            f"--ray-client-server-port={client}",
        ),
        *("--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 << 20}"),
        *(f"--temp-dir={folder / 'ray'}", "--disable-usage-stats"),
    ]
    with (folder / "ray.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    headers = {"Authorization": f"Bearer {Path(environment['RAY_AUTH_TOKEN_PATH']).read_text()}"}
    url = f"http://127.0.0.1:{dashboard}"
    try:
        until(lambda: process.poll() is not None or _answers(f"{url}/api/gcs_healthz", headers), START_SECONDS)
        assert process.poll() is None, (folder / "ray.log").read_text()[-3000:]
        yield url, psutil.Process(process.pid)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(started, timeout=5)
    for child in alive:
        child.kill()
    process.kill()
    process.wait()


@contextmanager
def _service(settings: ServingSettings, cluster: RaySettings) -> Iterator[str]:
    app = FastAPI()

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(asked: ChatRequest, http: Request) -> Response:
        if not hasattr(app.state, "gateway"):
            app.state.gateway = Gateway(settings, cluster)
        served = ServedModel(id=asked.model, base=BASE, encoder=ENCODER, adapter=layout.model(asked.model))
        answer = await while_connected(http, app.state.gateway.complete(asked, served))
        if isinstance(answer, dict):
            return JSONResponse(answer)
        return StreamingResponse(answer, media_type="text/event-stream")

    @app.exception_handler(ServiceError)
    async def refuse(_: Request, error: ServiceError) -> JSONResponse:
        body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        return JSONResponse({"error": body}, status_code=error.status, headers=error.headers)

    server = uvicorn.Server(uvicorn.Config(app, port=_free_port(), log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, 10)
    try:
        yield f"http://127.0.0.1:{server.config.port}"
    finally:
        server.should_exit = True
        thread.join(10)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended between two looks
        return ""


def _answers(url: str, headers: dict[str, str]) -> bool:
    try:
        return httpx.get(url, headers=headers, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
