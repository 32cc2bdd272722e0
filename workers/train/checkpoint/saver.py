"""Saving while training goes on: the step waits for a copy in memory, a thread does the rest."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ibllm_core.contract.job_spec import CheckpointPolicy
from ibllm_core.errors import ObjectExistsError
from ibllm_core.storage import sha256_of
from workers.train.checkpoint import files
from workers.train.checkpoint.listing import Checkpoints
from workers.train.checkpoint.parts import HostCopy
from workers.train.checkpoint.persistence import persistently
from workers.train.checkpoint.state import HISTORY_FILE, STATE_FILE, CheckpointState
from workers.train.engine.base import Engine

OnSaved = Callable[[CheckpointState, Sequence[int]], None]
"""Hears of a checkpoint, and of the steps whose checkpoints are there now."""
log = logging.getLogger(__name__)


class Saver:
    """Writes checkpoints with all ranks; each rank uploads its own files, the first one commits.

    Must be made, and its methods called, by all ranks alike. On the first one ``on_saved`` hears, in the saver's
    thread, of each checkpoint, and of it again where old ones went after it.
    """

    def __init__(
        self,
        engine: Engine,
        checkpoints: Checkpoints,
        policy: CheckpointPolicy,
        scratch: Path,
        on_saved: OnSaved = lambda state, kept: None,
    ) -> None:
        self._engine, self._checkpoints, self._policy, self._on_saved = engine, checkpoints, policy, on_saved
        self._group = dist.new_group(backend="gloo")  # of the thread alone: the main one has its own messages
        self._copy = HostCopy(engine, self._group)
        self._scratch = scratch
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way; all ranks' saves end at about the same time, the first rank's last."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, state: CheckpointState, history: bytes) -> None:
        """Copy the state and return; a save that is under way is waited for. Raises what an earlier one failed of."""
        self.wait()
        copied = self._copy.take()
        self._thread = threading.Thread(target=self._run, args=(state, history, copied), name="saver", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until what was to be saved is saved."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _run(self, state: CheckpointState, history: bytes, copied: torch.cuda.Event | None) -> None:
        try:
            if copied is not None:
                copied.synchronize()
            self._write(state, history)
        except BaseException as error:
            self._error = error
            log.exception("the checkpoint of step %d could not be written", state.step)

    def _write(self, state: CheckpointState, history: bytes) -> None:
        started = time.monotonic()
        tensors = self._copy.whole()
        prefix = self._checkpoints.prefix(state.step)
        writers = 1 + max(part.writer for part in self._copy.parts)
        entries: dict[str, Any] = {}
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as temporary:
            folder = Path(temporary)
            paths = []
            if self._engine.rank < writers:
                paths += files.write(folder, tensors, writer=self._engine.rank, writers=writers)
            if self._engine.rank == 0:
                paths += _write_small(folder, state, history)
            for path in paths:
                persistently(lambda path=path: self._upload(f"{prefix}/{path.name}", path))  # type: ignore[misc]
                entries[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        everyone: list[dict[str, Any]] = [{} for _ in range(self._engine.world_size)]
        dist.all_gather_object(everyone, entries, group=self._group)
        if self._engine.rank == 0:
            listed = {name: entry for mine in everyone for name, entry in sorted(mine.items())}
            persistently(lambda: self._commit(state, listed))
            self._on_saved(state, persistently(self._checkpoints.complete))
            if self._checkpoints.tidy(self._policy):
                self._on_saved(state, persistently(self._checkpoints.complete))
            size = sum(entry["bytes"] for entry in listed.values()) / 1e6
            log.info("saved step %d: %.1f MB in %.1f s", state.step, size, time.monotonic() - started)

    def _upload(self, key: str, path: Path) -> None:
        with path.open("rb") as source:
            self._checkpoints.store.upload(key, source)

    def _commit(self, state: CheckpointState, listed: dict[str, Any]) -> None:
        try:
            self._checkpoints.commit(state, listed)
        except ObjectExistsError:
            # Our own manifest, of a try whose answer was lost: the steps of a run are written once.
            log.info("the manifest of step %d is there already", state.step)


def _write_small(folder: Path, state: CheckpointState, history: bytes) -> list[Path]:
    (folder / STATE_FILE).write_text(state.model_dump_json(indent=1))
    (folder / HISTORY_FILE).write_bytes(history)
    return [folder / STATE_FILE, folder / HISTORY_FILE]
