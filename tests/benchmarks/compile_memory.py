"""Watch a compile run's memory at two sizes of dataset: ``python -m tests.benchmarks.compile_memory``.

Distinct pictures are decoded as for ImageBind, and encoded by a small function, so that the pipeline and not the
encoder is what takes the time; real Ray, real object store. Memory is what only the driver holds, and only Ray's
workers, sampled while the run goes on; Ray's object store, which has a fixed size, is not in it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import Resources
from ibllm_core.contract.run_spec import CompileInput
from ibllm_core.storage import sha256_of
from tests.workers.compile.world import World, chat_row, jsonl, nodes, picture, world

SIDE = 32  # pixels: the rows are to be many, not large
SAMPLE_SECONDS = 0.25
LIGHT = """
import torch
from ibllm_core.contract.media import Modality
from ibllm_core.encoders.preprocess.image import centre_crop

class Light:
    name, licence, feature_dim, sha256 = "light", "Apache-2.0", 1024, "light"
    modalities = frozenset({Modality.IMAGE})
    def weight_files(self, modality): return ()
    def preprocess(self, modality, content, *, crop_seed=None): return centre_crop(content)
    def grey(self): return torch.zeros(3, 224, 224)
    def encode(self, modality, inputs):
        pixels = torch.stack(list(inputs)).float()
        pooled = torch.nn.functional.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), 32).flatten(1)
        return torch.nn.functional.normalize(pooled - 128, dim=-1)

def make(*, weights, device, dtype):
    return Light()
"""


@dataclass
class Watch:
    """Peaks in bytes."""

    driver: int = 0
    workers: int = 0
    largest_worker: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        me = psutil.Process()
        while not self.stop.wait(SAMPLE_SECONDS):
            self.driver = max(self.driver, _own(me))
            workers = [_own(process) for process in psutil.process_iter() if _is_worker(process)]
            self.workers = max(self.workers, sum(workers))
            self.largest_worker = max(self.largest_worker, *workers, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        register(folder / "packages")
        with world(folder) as made:
            for rows in chosen.rows:
                with nodes(os.cpu_count() or 2):
                    report(made, rows)


def register(folder: Path) -> None:
    """The encoder as a stranger's package, visible to every process that starts from here on."""
    info = folder / "light-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "light_encoder.py").write_text(LIGHT)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: light\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ibllm.encoders]\nlight = light_encoder:make\n")
    os.environ["PYTHONPATH"] = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    import sys

    sys.path.insert(0, str(folder))


def report(made: World, rows: int) -> None:
    """One line."""
    upload = _upload(made, rows)
    started = time.monotonic()
    with watched() as watch:
        made.compile(upload, job=f"ftjob-{rows}", encoder="light", resources=Resources(workers=1))
    seconds = time.monotonic() - started
    print(
        f"{rows:,} rows: {seconds:.0f} s, driver {watch.driver / 1e6:.0f} MB, workers together "
        f"{watch.workers / 1e6:.0f} MB, the largest {watch.largest_worker / 1e6:.0f} MB"
    )


def _upload(made: World, rows: int) -> CompileInput:
    """A file of so many rows, without ever holding it."""
    key = layout.file(f"file-{rows}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("wb") as target:
            for row in range(rows):
                target.write(jsonl([chat_row("what is this ?", "a cat", picture(row, SIDE))]))
        with path.open("rb") as source:
            made.store.upload(key, source)
        sha256 = sha256_of(path)
    return CompileInput(
        name="a", location=key, key=key, filename="rows.jsonl", sha256=sha256, template="short", row_tokens=64
    )


@contextmanager
def watched() -> Iterator[Watch]:
    """Sample memory in a thread."""
    watch = Watch()
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        thread.join()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::")
    except psutil.Error:
        return False


def _own(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    main()
