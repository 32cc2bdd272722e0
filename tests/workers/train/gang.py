"""Ranks as real processes that start in milliseconds: forked from a server that has imported everything once.

``tiny.start`` is the same under torchrun, where each rank spends six seconds on its imports.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 240.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a gang ended: exit codes (negative: the signal), results of the work, and all that was printed, by rank."""

    codes: list[int]
    results: list[Any]
    output: list[str]


class Gang:
    """Ranks that run ``work(*arguments)`` in a process group of gloo."""

    def __init__(self, work: Callable[..., Any], *arguments: Any, ranks: int = 1) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gang-"))
        self.processes: list[BaseProcess] = [
            _server().Process(target=_work, args=(self._folder, rank, ranks, work, arguments), daemon=True)
            for rank in range(ranks)
        ]
        for process in self.processes:
            process.start()

    def signal(self, number: signal.Signals, rank: int = 0) -> None:
        """Send a signal to a rank."""
        _kill(self.processes[rank], number)

    def output(self, rank: int = 0) -> str:
        """What a rank has printed until now."""
        path = self._folder / f"output-{rank}"
        return path.read_text() if path.exists() else ""

    def wait_for(self, text: str, rank: int = 0) -> None:
        """Wait until a rank has printed something."""
        deadline = time.monotonic() + SECONDS
        while text not in self.output(rank):
            assert time.monotonic() < deadline and self.processes[rank].is_alive(), self.output(rank)[-3000:]
            self.processes[rank].join(0.01)

    def join(self, *, grace: float = 15.0) -> Ended:
        """Wait for the end. Where one rank dies, the others get SIGTERM and then SIGKILL, as under torchrun."""
        alive = {process.sentinel: process for process in self.processes}
        deadline, died = time.monotonic() + SECONDS, False
        while alive:
            ended: list[Any] = wait(list(alive), timeout=max(0.0, deadline - time.monotonic()))
            for process in alive.values() if not ended else ():
                _kill(process, signal.SIGKILL if died else signal.SIGABRT)  # which says where it hangs
            if any(alive.pop(sentinel).exitcode for sentinel in ended) and not died:
                died, deadline = True, time.monotonic() + grace
                for process in alive.values():
                    process.terminate()
        for process in self.processes:
            process.join()
        results = [self._folder / f"result-{rank}" for rank in range(len(self.processes))]
        found = Ended(
            codes=[process.exitcode or 0 for process in self.processes],
            results=[pickle.loads(path.read_bytes()) if path.exists() else None for path in results],
            output=[self.output(rank) for rank in range(len(self.processes))],
        )
        shutil.rmtree(self._folder)
        return found


def run(work: Callable[..., Any], *arguments: Any, ranks: int = 1) -> list[Any]:
    """What each rank returns from ``work``."""
    ended = Gang(work, *arguments, ranks=ranks).join()
    assert not any(ended.codes), "\n".join(ended.output)[-6000:]
    return ended.results


def _kill(process: BaseProcess, number: signal.Signals) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def _server() -> Any:
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}  # read by what the server imports
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "hypothesis", "deepspeed", "tests.workers.train.runs"])
    return context


def _work(folder: Path, rank: int, ranks: int, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    with (folder / f"output-{rank}").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    faulthandler.enable()
    torch.set_num_threads(1)
    # DeepSpeed reads these on its own.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    meeting = dist.FileStore(str(folder / "meeting"), ranks)  # no port to compete for
    dist.init_process_group("gloo", store=meeting, rank=rank, world_size=ranks)
    result = work(*arguments)
    (folder / f"result-{rank}").write_bytes(pickle.dumps(result))
    dist.barrier()  # the first rank may end first, and with it what the others still talk through
    sys.stdout.flush()
    dist.destroy_process_group()
