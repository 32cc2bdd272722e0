"""The checkpoints of a run in the store: which are complete, which go, and what one holds."""

from __future__ import annotations

import fcntl
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import CheckpointPolicy
from ibllm_core.errors import IntegrityError, StorageError
from ibllm_core.storage import Store
from workers.train.checkpoint.retention import kept
from workers.train.checkpoint.state import HISTORY_FILE, STATE_FILE, CheckpointState

STEP = re.compile(r"/step-(\d+)/")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint on this node, checked against its manifest."""

    folder: Path
    state: CheckpointState
    history: bytes


class Checkpoints:
    """The checkpoints of one run of a job."""

    def __init__(self, store: Store, job_id: str, run_name: str) -> None:
        self.store = store
        self._job_id, self._run_name = job_id, run_name

    def prefix(self, step: int) -> str:
        """Where the checkpoint of a step is."""
        return layout.checkpoint(self._job_id, self._run_name, step)

    def complete(self) -> list[int]:
        """The steps of all complete checkpoints, newest first."""
        return self._steps_with(layout.MANIFEST)

    def open(self, step: int, cache: Path) -> Opened:
        """Fetch a checkpoint; ``IntegrityError`` or ``ObjectMissingError`` where it is damaged, its manifest too.

        The processes of a node share one copy.
        """
        folder = cache / self.prefix(step)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / ".download.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.store.download_folder(self.prefix(step), cache)
            state = CheckpointState.model_validate_json((folder / STATE_FILE).read_bytes())
            return Opened(folder=folder, state=state, history=(folder / HISTORY_FILE).read_bytes())
        except (ValueError, LookupError, TypeError, AttributeError, FileNotFoundError) as error:
            key = self.prefix(step)
            raise IntegrityError(
                f"{self.store.uri(key)} has no readable manifest or state: {error!r}", key=key
            ) from error

    def forget(self, step: int, cache: Path) -> None:
        """Let a node's copy go."""
        shutil.rmtree(cache / self.prefix(step), ignore_errors=True)

    def commit(self, state: CheckpointState, files: Mapping[str, Any]) -> None:
        """Make a checkpoint real: the manifest, after all its files."""
        manifest = {"step": state.step, "validation_loss": state.validation_loss, "files": dict(files)}
        self.store.put(layout.manifest(self.prefix(state.step)), json.dumps(manifest, indent=1).encode(), only_new=True)

    def remove(self, step: int) -> None:
        """Delete a checkpoint."""
        self.store.delete_folder(self.prefix(step))

    def validation_losses(self) -> dict[int, float | None]:
        """Of all complete checkpoints by their step; None where it was not measured, or cannot be read."""
        return {step: self._validation_loss(step) for step in self.complete()}

    def tidy(self, policy: CheckpointPolicy) -> bool:
        """Delete what neither the policy nor a pin keeps, and say whether anything went.

        What cannot be deleted now is deleted after a later save.
        """
        has_removed = False
        try:
            losses = self.validation_losses()
            stays = kept(losses, policy) | set(self._steps_with(layout.PIN))
            for step in sorted(losses.keys() - stays):
                self.remove(step)
                has_removed = True
        except StorageError as error:
            log.warning("old checkpoints stay for now: %s", error)
        return has_removed

    def _steps_with(self, name: str) -> list[int]:
        keys = self.store.list(f"{layout.checkpoints(self._job_id, self._run_name)}/")
        found = (STEP.search(key) for key in keys if key.endswith(f"/{name}"))
        return sorted((int(step[1]) for step in found if step), reverse=True)

    def _validation_loss(self, step: int) -> float | None:
        try:
            loss: float | None = self.store.manifest(self.prefix(step)).get("validation_loss")
        except (ValueError, AttributeError) as error:  # it goes when it is old; who resumes from it says so
            log.warning("the manifest of step %d cannot be read: %s", step, error)
            return None
        return loss
