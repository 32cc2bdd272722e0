"""What all ranks do after a step, agreed without waiting for the device."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import torch
import torch.distributed as dist

from ibllm_core.contract.job_spec import CheckpointPolicy


@dataclass(frozen=True, kw_only=True)
class Orders:
    """For all ranks alike: save after this step; save and leave after it."""

    save: bool
    stop: bool


class Stop:
    """Whether this process was asked to leave; set by SIGTERM where it arrives here, else by whoever hears of it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether it was asked."""
        return self._event.is_set()

    def on_sigterm(self) -> None:
        """Take SIGTERM as the wish to leave; only the main thread of a process may call it."""

        def handle(_signal: int, _frame: FrameType | None) -> None:
            self.set()

        signal.signal(signal.SIGTERM, handle)


class _Saving(Protocol):
    @property
    def is_busy(self) -> bool: ...


class Control:
    """One small sum over the hosts a step, begun before the step and read after it.

    Any rank may want to stop. The first one alone says when to save, since the clocks of several would differ; it
    leaves a save out while the one before it is still being uploaded, unless that would cost a step that may be the
    best one and so the result: such a save waits.
    """

    def __init__(self, policy: CheckpointPolicy, saver: _Saving, stop: Stop) -> None:
        self._policy, self._saver, self._stop = policy, saver, stop
        self._group = dist.new_group(backend="gloo")
        self._is_first = dist.get_rank() == 0
        self._saved_at = time.monotonic()
        self._wishes = torch.zeros(2)
        self._sum: dist.Work | None = None

    def begin(self, step: int, *, save: bool = False) -> None:
        """Say this rank's wishes for the end of ``step``; ``save`` where the step is one worth saving."""
        self._wishes = torch.tensor([float(self._wants_save(step, save)), float(self._stop.is_set)])
        self._sum = dist.all_reduce(self._wishes, group=self._group, async_op=True)

    def orders(self) -> Orders:
        """What all agreed on for the step that was begun."""
        assert self._sum is not None
        self._sum.wait()
        save, stop = (wish > 0 for wish in self._wishes.tolist())
        if save:
            self._saved_at = time.monotonic()
        return Orders(save=save or stop, stop=stop)

    def _wants_save(self, step: int, is_worth_it: bool) -> bool:
        if not self._is_first:
            return False
        if is_worth_it and self._policy.result == "best":
            return True
        if self._saver.is_busy:
            return False
        if is_worth_it:
            return True
        if self._policy.every_steps is not None:
            return step % self._policy.every_steps == 0
        return time.monotonic() - self._saved_at >= self._policy.every_seconds
