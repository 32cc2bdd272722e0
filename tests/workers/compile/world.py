"""A compile run's world for tests: a real object store, a real Ray cluster, a tiny base, pictures to encode."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import DataSettings, Resources
from ibllm_core.contract.run_spec import CompileInput, CompileSpec, Outcome, Progress
from ibllm_core.data.dataset import Dataset
from ibllm_core.data.mapped import open_compiled
from ibllm_core.storage import ObjectStore
from tests.conftest import tiny_llama, word_tokenizer
from tests.ibllm_core.formats.object_store import RunningStore, running_store
from workers.compile import run as compile_run
from workers.import_base import upload
from workers.settings import WorkerSettings

BASE = "tiny"


class Recorder:
    """Stands where the service's ear is: keeps what a run says."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.encoding: dict[str, float] = {}

    def progress(self, progress: Progress) -> None:
        del progress

    def clear(self) -> None:
        self.events.clear()
        self.encoding.clear()

    def event(self, message: str, data: dict[str, Any] | None = None) -> None:
        self.events.append(message)
        if data and "busy_share" in data:
            self.encoding = data


@dataclass
class World:
    """One object store and one node's cache."""

    running: RunningStore
    store: ObjectStore
    cache: Path
    recorder: Recorder = field(default_factory=Recorder)

    def compile(self, *inputs: CompileInput, job: str = "ftjob-1", **changes: Any) -> Outcome:
        """Run one attempt of a job's compile run."""
        settings = WorkerSettings(ibllm_cache=self.cache, ibllm_local_data=True)
        return compile_run.run(spec(*inputs, job=job, **changes), self.store, settings, self.recorder)

    def dataset(self, outcome: Outcome, name: str = "a") -> Dataset:
        """What an input became."""
        return open_compiled(self.store, outcome.outputs["datasets"][name], self.cache)

    def manifest(self, outcome: Outcome, name: str = "a") -> dict[str, Any]:
        return self.store.manifest(layout.dataset(outcome.outputs["datasets"][name]))

    def put_upload(self, name: str, content: bytes, template: str = "short") -> CompileInput:
        """An uploaded file, as the API stores it."""
        import hashlib

        key = layout.file(f"file-{name}")
        self.store.put(key, content)
        return CompileInput(
            name="a",
            location=f"file-{name}",
            key=key,
            filename=name,
            sha256=hashlib.sha256(content).hexdigest(),
            template=template,
            row_tokens=64,
        )


def spec(*inputs: CompileInput, job: str = "ftjob-1", workers: int = 1, **changes: Any) -> CompileSpec:
    settings: dict[str, Any] = {
        "job_id": job,
        "run_id": f"{job}-compile",
        "attempt_id": f"{job}-compile-1",
        "attempt_number": 1,
        "service_url": "http://none",
        "token": "none",
        "base": BASE,
        "encoder": "efficientnet-lite0",
        "adapter": {},
        "seed": 0,
        "resources": Resources(workers=workers),
        "data": DataSettings(),
        "data_prefixes": ("s3://", "/"),
        "inputs": inputs,
        **changes,
    }
    return CompileSpec(**settings)


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A store with a tiny base in it, and the environment that every process of a node reads."""
    with running_store(folder) as running:
        settings = running.settings
        os.environ |= {
            "IBLLM_S3_ENDPOINT": settings.endpoint,
            "IBLLM_S3_BUCKET": settings.bucket,
            "IBLLM_S3_ACCESS_KEY": settings.access_key,
            "IBLLM_S3_SECRET_KEY": settings.secret_key,
            "IBLLM_CACHE": str(folder / "cache"),
            "IBLLM_LOCAL_DATA": "true",
            "RAY_AUTH_MODE": "disabled",
        }
        store = ObjectStore(settings)
        base = folder / "base"
        tiny_llama(vocab_size=19).save_pretrained(base)
        word_tokenizer().save_pretrained(base)
        from ibllm_core.bases.formats import open_source

        upload(store, BASE, open_source(base))
        yield World(running, store, folder / "cache")


@contextmanager
def nodes(*cpus: int) -> Iterator[Cluster]:
    """A Ray cluster of real nodes on this machine, one for each number of CPUs."""
    cluster = Cluster()
    for number in cpus:
        cluster.add_node(num_cpus=number, object_store_memory=200 << 20)
    ray.init(address=cluster.address, log_to_driver=True)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def picture(number: int, side: int = 48) -> bytes:
    """A picture like no other."""
    rng = np.random.default_rng(number)
    pixels = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((side // 4, side // 4, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def chat_row(question: str, answer: str, *pictures: bytes) -> dict[str, Any]:
    urls = ["data:image/png;base64," + base64.b64encode(content).decode() for content in pictures]
    parts = [{"type": "text", "text": question}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
    return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]}


def jsonl(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
