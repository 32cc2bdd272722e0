"""The API under load: ``python -m tests.benchmarks.api``.

One API process with PostgreSQL and an object store beside it, on this machine. Durable creates a second over HTTP;
retrieve and list with 100,000 jobs in the store; 200 idle streams of events; the time from start to ready. The client
sends prepared bytes over open connections, so that what is measured is the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg

from ibllm_core.contract import layout
from ibllm_core.storage import ObjectStore
from orchestrator.db.session import migrate
from tests.benchmarks.training_table import heading, table
from tests.ibllm_core.formats.object_store import running_store
from tests.orchestrator.api.postgres import running_postgres
from tests.orchestrator.api.service import API_KEY, BASE, ENCODER, settings_of

JOBS = 100_000
SECONDS = 10.0
CONNECTIONS = (4, 8)  # of creates; reads are timed over two
STREAMS = 200
PORT_WAIT_SECONDS = 60.0
FILL = """
INSERT INTO jobs (id, project_id, created_at, finished_at, status, request, metadata, cancel_requested, result_files,
                  openai_hyperparameters)
SELECT 'ftjob-old' || lpad(n::text, 21, '0'), 'proj-default', now() - n * interval '1 minute',
       now() - n * interval '1 minute', 'succeeded', jobs.request, jsonb_build_object('number', n::text), false,
       '[]', '{}'
FROM generate_series(1, %(count)s) n, jobs WHERE jobs.id = %(model)s
"""
FILL_RUNS = """
INSERT INTO runs (id, job_id, position, kind, state, version, outputs, reason)
SELECT jobs.id || '-' || runs.kind, jobs.id, runs.position, runs.kind, 'done', 1, '{}', 'succeeded'
FROM jobs, runs WHERE jobs.id LIKE 'ftjob-old%%' AND runs.job_id = %(model)s
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--streams", type=int, default=STREAMS)
    chosen = parser.parse_args()
    heading("The API", "One process; the connections send without a pause.")
    report(seconds=chosen.seconds, jobs=chosen.jobs, streams=chosen.streams)


def report(*, seconds: float, jobs: int, streams: int) -> dict[str, float]:
    """Measure it all and print it."""
    found: dict[str, float] = {}
    with _service() as api:
        found["seconds from start to ready"] = api.start_seconds
        found["MB idle"] = api.memory()
        file = _file(api)
        job = _create(api, file)
        found["MB with idle streams"] = asyncio.run(_idle_streams(api, job, streams))
        for connections in CONNECTIONS:
            busy = api.busy_seconds()
            rate, millis = asyncio.run(_load(api, _creator(file), seconds, connections))
            name = f"creates over {connections}"
            found |= _told(name, rate, millis)
            found[f"{name} ms of a core each"] = (api.busy_seconds() - busy) / len(millis) * 1000
        _fill(api, job, jobs)
        old = f"ftjob-old{jobs // 2:021}"
        for name, path in (
            ("retrieve", f"/v1/fine_tuning/jobs/{old}"),
            ("list", "/v1/fine_tuning/jobs?limit=20"),
            ("list deep", f"/v1/fine_tuning/jobs?limit=20&after={old}"),
            ("list by metadata", f"/v1/fine_tuning/jobs?limit=20&metadata[number]={jobs // 2}"),
        ):
            rate, millis = asyncio.run(_load(api, lambda n, path=path: _get(path), seconds / 2, connections=2))
            found |= _told(name, rate, millis)
        found["MB after the load"] = api.memory()
    table(["what", "figure"], [[name, f"{value:.1f}"] for name, value in found.items()])
    return found


@dataclass(frozen=True, kw_only=True)
class Api:
    """The process under test."""

    port: int
    process: psutil.Process
    start_seconds: float
    database: str

    @property
    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {API_KEY}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}/v1", headers=headers, trust_env=False, timeout=60)

    def busy_seconds(self) -> float:
        """Seconds of a core that the process has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Resident megabytes."""
        return self.process.memory_info().rss / 1e6


@contextmanager
def _service() -> Iterator[Api]:
    with (
        tempfile.TemporaryDirectory() as first,
        tempfile.TemporaryDirectory() as second,
        running_store(Path(first)) as store,
        running_postgres(Path(second), is_durable=True) as postgres,
    ):
        address = postgres.new_database("ibllm")
        migrate(address)
        ObjectStore(store.settings).put_json(layout.manifest(layout.base(BASE)), {"files": {}})
        port = _free_port()
        environment = {**os.environ, **settings_of(address, store), "IBLLM_PORT": str(port)}
        quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        began = time.monotonic()
        api = subprocess.Popen([sys.executable, "-m", "orchestrator.api"], **quiet)
        _until(lambda: _answers(port))
        ready = time.monotonic() - began
        checker = subprocess.Popen([sys.executable, "-m", "orchestrator.files"], **quiet)
        try:
            yield Api(port=port, process=psutil.Process(api.pid), start_seconds=ready, database=_plain(address))
        finally:
            for process in (api, checker):
                process.terminate()
                process.wait()


def _file(api: Api) -> str:
    caption = {"image": "data:image/png;base64,iVBORw0KGgo=", "caption": "a cat"}
    with api.client as client:
        content = (json.dumps(caption) + "\n").encode()
        made = client.post("/files", data={"purpose": "fine-tune"}, files={"file": ("c.jsonl", content)}).json()
        _until(lambda: client.get(f"/files/{made['id']}").json()["status"] != "uploaded")
    return str(made["id"])


def _create(api: Api, file: str) -> str:
    with api.client as client:
        answer = client.post("/fine_tuning/jobs", json=_body(file))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


def _body(file: str) -> dict[str, object]:
    return {"model": BASE, "encoder": ENCODER, "training_file": file, "validation_file": file}


def _creator(file: str) -> Callable[[int], bytes]:
    return lambda number: _post("/v1/fine_tuning/jobs", {**_body(file), "metadata": {"number": str(number)}})


def _fill(api: Api, model: str, count: int) -> None:
    with psycopg.connect(api.database, autocommit=True) as connection:
        connection.execute(FILL, {"count": count, "model": model})
        connection.execute(FILL_RUNS, {"model": model})
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")  # else it runs while the figures are taken


async def _load(
    api: Api, request: Callable[[int], bytes], seconds: float, connections: int
) -> tuple[float, list[float]]:
    """Requests a second, and the milliseconds of each."""
    millis: list[float] = []
    began = time.monotonic()

    async def send(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        while time.monotonic() - began < seconds:
            sent = time.monotonic()
            writer.write(request(number))
            status = await _read(reader)
            assert status == 200, status
            millis.append((time.monotonic() - sent) * 1000)
            number += connections
        writer.close()

    await asyncio.gather(*(send(number) for number in range(connections)))
    return len(millis) / (time.monotonic() - began), millis


async def _idle_streams(api: Api, job: str, count: int) -> float:
    """Megabytes of the process while streams of a job's events are open, all of them having told what there is."""
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(_get(f"/v1/fine_tuning/jobs/{job}/events?stream=true"))
        await reader.readuntil(b"data: ")
        writers.append(writer)
    await asyncio.sleep(5)
    used = api.memory()
    for writer in writers:
        writer.close()
    return used


async def _read(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(head.split(b" ", 2)[1])


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode()


def _post(path: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _told(name: str, rate: float, millis: list[float]) -> dict[str, float]:
    return {
        f"{name} a second": rate,
        f"{name} p50 ms": _share(millis, 0.5),
        f"{name} p99 ms": _share(millis, 0.99),
    }


def _share(millis: list[float], share: float) -> float:
    return statistics.quantiles(millis, n=100)[int(share * 100) - 1]


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=1).is_success
    except httpx.HTTPError:
        return False


def _until(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PORT_WAIT_SECONDS, "it did not come true"
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _plain(address: str) -> str:
    return address.replace("postgresql+psycopg://", "postgresql://")


if __name__ == "__main__":
    main()
