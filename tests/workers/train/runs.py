"""Whole runs in a gang, and the ways in which they can be killed."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch.distributed as dist
from torch import Tensor

from ibllm_core.contract.run_spec import CheckpointReport, TrainSpec
from ibllm_core.errors import CoreError
from ibllm_core.local_store import LocalStore
from tests.workers.train import gang, tiny, world
from workers.train import loop
from workers.train.console import Console
from workers.train.control import Stop
from workers.train.run import run_rank
from workers.train.setup import Clock

READ, TOLD = "read.jsonl", "told.jsonl"
Moment = Literal["after a step", "in an upload", "before a manifest", "after a manifest", "at any time", "never again"]
MOMENTS: tuple[Moment, ...] = (
    "after a step",
    "in an upload",
    "before a manifest",
    "after a manifest",
    "at any time",
)


@dataclass(frozen=True, kw_only=True)
class Kill:
    """SIGKILL of ``rank`` by itself, at a step or later; ``never again`` it hangs, and holds Python's lock."""

    moment: Moment
    step: int
    rank: int = 0
    seconds: float = 0.0

    @staticmethod
    def drawn(rng: random.Random, *, last_step: int, ranks: int) -> Kill:
        """One at random."""
        moment = rng.choice(MOMENTS)
        rank = 0 if "manifest" in moment or moment == "in an upload" else rng.randrange(ranks)
        return Kill(moment=moment, step=rng.randint(1, last_step), rank=rank, seconds=rng.uniform(0.0, 1.5))


def train(root: Path, spec: TrainSpec, *, ranks: int = 1, kill: Kill | None = None, **changes: Any) -> gang.Ended:
    """One attempt; changes are those of ``run_rank``."""
    return gang.Gang(train_rank, root, spec, kill, changes, ranks=ranks).join()


def finish(root: Path, spec: TrainSpec, *, ranks: int = 1, **changes: Any) -> dict[str, Any]:
    """Train to the end; the outcome's outputs."""
    ended = train(root, spec, ranks=ranks, **changes)
    assert ended.results[0] is not None, "\n".join(ended.output)[-6000:]
    assert ended.results[0]["reason"] == "succeeded", ended.results[0]
    outputs: dict[str, Any] = ended.results[0]
    return outputs


def attempt(spec: TrainSpec, number: int) -> TrainSpec:
    """The n-th attempt of a run."""
    return spec.model_copy(update={"attempt_id": f"a{number}", "attempt_number": number})


def twin(root: Path, name: str) -> Path:
    """A copy of a store, beside it."""
    shutil.copytree(root, root.parent / name)
    return root.parent / name


def furnish(root: Path, **changes: Any) -> Path:
    """A store with base, data and an adapter of stage 1."""
    root.mkdir()
    tiny.furnish(tiny.local(root), root, **changes)
    finish(root, tiny.small(adapter_prefix=world.PARENT, hyperparameters={"n_epochs": 8}))
    shutil.rmtree(root / "jobs/j/stage1/checkpoints")
    shutil.rmtree(root / "jobs/j/stage1/history")
    (root / READ).unlink()
    (root / TOLD).unlink()
    return root


def read(root: Path) -> list[dict[str, Any]]:
    """What was trained on: attempt, rank, step, epoch, rows of the global batch, label tokens of rank and batch."""
    return [json.loads(line) for line in (root / READ).read_text().splitlines()]


def told(root: Path) -> list[dict[str, Any]]:
    """What the service would have heard but for heartbeats: events, metrics and checkpoints, in their order."""
    return [json.loads(line) for line in (root / TOLD).read_text().splitlines()]


def steps(root: Path) -> list[int]:
    """The steps that the first rank took, in their order."""
    return [line["step"] for line in read(root) if line["rank"] == 0]


def train_rank(root: Path, spec: TrainSpec, kill: Kill | None, changes: dict[str, Any]) -> dict[str, Any]:
    """The work of one rank."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    kill = kill if kill and kill.rank == dist.get_rank() else None
    step_taken = _recording(root, spec, loop.train_step)
    loop.train_step = _deadly(step_taken, kill) if kill else step_taken
    stop = Stop()
    stop.on_sigterm()
    store = _DeadlyStore(root, kill)
    try:
        outcome = run_rank(spec, store, root / "cache", _Recorder(root / TOLD), stop, Clock(), **changes)
    except CoreError as error:
        return {"reason": "failed", "error": error}
    return {"reason": outcome.reason.value, "message": outcome.message, **outcome.outputs}


class _Recorder(Console):
    """A terminal of each rank, whose words stay."""

    def __init__(self, path: Path) -> None:
        super().__init__(dist.get_rank())
        self._path, self._lock = path, threading.Lock()

    def event(self, message: str, *, level: str = "info", data: Mapping[str, object] | None = None) -> None:
        super().event(message, level=level, data=data)
        self._keep("event", {"message": message, "level": level})

    def metrics(self, message: str, data: Mapping[str, object]) -> None:
        super().metrics(message, data)
        self._keep("metrics", {"message": message, **data})

    def checkpoint(self, report: CheckpointReport) -> None:
        self._keep("checkpoint", report.model_dump(mode="json"))

    def _keep(self, kind: str, word: Mapping[str, object]) -> None:
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps({"kind": kind, **word}) + "\n")


def _recording(root: Path, spec: TrainSpec, take: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def recorded(engine: Any, step: Any, *arguments: Any) -> Tensor:
        about = {"attempt": spec.attempt_number, "rank": engine.rank, "step": step.number, "epoch": step.epoch}
        mine = [sum(micro.places_N.numel() for micro in step.micro_batches)]
        with (root / READ).open("a") as file:
            file.write(json.dumps({**about, "rows": step.rows, "labels": [*mine, step.num_labels]}) + "\n")
        return take(engine, step, *arguments)

    return recorded


def _deadly(take: Callable[..., Tensor], kill: Kill) -> Callable[..., Tensor]:
    timers: list[threading.Timer] = []

    def taken(engine: Any, step: Any, *arguments: Any) -> Tensor:
        if kill.moment == "at any time" and not timers:
            timers.append(threading.Timer(kill.seconds, _die))
            timers[0].start()
        if kill.moment == "never again" and step.number >= kill.step:
            ctypes.PyDLL(None).sleep(1000)
        loss = take(engine, step, *arguments)
        if kill.moment == "after a step" and step.number >= kill.step:
            _die()
        return loss

    return taken


class _DeadlyStore(LocalStore):
    """A folder whose process dies while it writes a checkpoint of a step, or a later one."""

    def __init__(self, root: Path, kill: Kill | None) -> None:
        super().__init__(root)
        self._kill = kill

    def upload(self, key: str, source: BinaryIO) -> None:
        super().upload(key, _Cut(source) if self._is_due(key, "in an upload") else source)  # type: ignore[arg-type]

    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        is_manifest = key.endswith("MANIFEST.json")
        if is_manifest and self._is_due(key, "before a manifest"):
            _die()
        super().put(key, body, only_new=only_new)
        if is_manifest and self._is_due(key, "after a manifest"):
            _die()

    def _is_due(self, key: str, moment: Moment) -> bool:
        if self._kill is None or self._kill.moment != moment or "/step-" not in key:
            return False
        return int(key.split("/step-")[1].split("/", maxsplit=1)[0]) >= self._kill.step


class _Cut:
    """A file that is killed for after its first half."""

    def __init__(self, source: BinaryIO) -> None:
        self._source, self._reads = source, 0

    def read(self, count: int) -> bytes:
        self._reads += 1
        if self._reads > 1:
            _die()
        return self._source.read(max(1, min(count, os.fstat(self._source.fileno()).st_size // 2)))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
