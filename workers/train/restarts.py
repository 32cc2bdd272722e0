"""What happens to a gang that failed or is to change its size; runs in Ray Train's controller, beside the driver.

Ray Train starts a gang again within the same controller, which saves the start of three processes.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import ray
from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback  # Ray names it for workarounds as this one

from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.errors import CoreError, OutOfMemoryError, StorageError
from ibllm_core.open_store import open_store
from ibllm_core.settings import StorageSettings
from workers.errors import cause_of, chain_of
from workers.train.checkpoint.listing import Checkpoints
from workers.train.checkpoint.persistence import persistently
from workers.train.supervisor import Note

RESTARTS = 3  # in a row without a new checkpoint between them
LEAVING_SECONDS = 60.0
log = logging.getLogger(__name__)


class Restarts(UserCallback):  # type: ignore[misc]
    """Lets Ray Train start a gang again from its newest checkpoint; what it raises ends the run."""

    def __init__(self, spec: TrainSpec, supervisor: Any) -> None:
        self._spec, self._supervisor = spec, supervisor
        self._failures = 0
        self._newest: int | None = None

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Decide after ranks failed; raises the cause where trying again would change nothing."""
        del run_context
        cause = cause_of(worker_exceptions)
        reason = reason_of(cause)
        if silent := ray.get(self._supervisor.silent.remote()):
            reason += f"; before that, worker {' and '.join(map(str, silent))} had stopped to answer"
        log.warning("%s failed: %s", self._spec.stage, reason)
        newest = newest_checkpoint(self._spec)
        self._failures, self._newest = (1 if newest != self._newest else self._failures + 1), newest
        self._spec = changed(self._spec, cause, self._failures)
        note = Note(message=f"{self._spec.stage} goes on after a failure: {reason}", level="warn")
        if not ray.get(self._supervisor.renew.remote(self._spec, note)):
            raise cause


class Resizes(ControllerCallback):  # type: ignore[misc]
    """Lets a gang save before Ray Train ends it for one of another size."""

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor

    def before_controller_execute_resize_decision(self, decision: object) -> None:
        """Ask the ranks to leave, and wait for them; there may be none."""
        del decision
        if ray.get(self._supervisor.is_gone.remote()):
            return
        ray.get(self._supervisor.leave.remote())
        deadline = time.monotonic() + LEAVING_SECONDS
        while not ray.get(self._supervisor.is_gone.remote()) and time.monotonic() < deadline:
            time.sleep(0.1)
        ray.get(self._supervisor.renew.remote())


def changed(spec: TrainSpec, cause: BaseException, failures: int) -> TrainSpec:
    """What to try next after so many failures in a row; raises where trying again would change nothing. Pure."""
    for link in chain_of(cause):
        if isinstance(link, OutOfMemoryError):
            tokens = link.fields["micro_batch_tokens"]
            if tokens is None:
                raise link
            resources = spec.resources.model_copy(update={"micro_batch_tokens": tokens})
            return spec.model_copy(update={"resources": resources})
        if isinstance(link, CoreError) and not isinstance(link, StorageError):
            raise link
    if failures > RESTARTS:
        raise cause
    return spec


def reason_of(cause: BaseException) -> str:
    """A failure in one line."""
    root = chain_of(cause)[-1]
    return (str(root).strip().splitlines() or [type(root).__name__])[0][:500]


def newest_checkpoint(spec: TrainSpec) -> int | None:
    """The newest complete checkpoint. A gang that cannot read it need not be started: a store that is away is waited
    for, and ``StorageError`` raised after half an hour."""
    checkpoints = Checkpoints(open_store(StorageSettings()), spec.job_id, spec.stage)
    return next(iter(persistently(checkpoints.complete)), None)
