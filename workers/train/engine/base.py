"""What the training loop asks of an engine, whichever way the trained state is spread over the ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ibllm_core.model.batch import Batch
from workers.train.engine.optimizer import GuardedAdamW


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """This rank's share of one trained parameter, as views of the live state in float32, ``[n]``.

    It begins at element ``start`` of the flattened parameter ``name``, whose shape is ``shape``. The fragments of all
    ranks cover every parameter; a replicated one is whole on each rank.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    weight: Tensor
    moments: dict[str, Tensor]


class Engine(Protocol):
    """Forward, backward and step over trained state that may be spread over the ranks."""

    rank: int
    world_size: int
    zero_stage: int

    def forward(self, batch: Batch) -> Tensor:
        """Losses of the label tokens, ``[N]``."""

    def backward(self, share: Tensor, *, is_last: bool) -> None:
        """Add the gradients of this rank's share of the global loss; reduce them with the last one of a step."""

    def step(self, rate_share: float) -> None:
        """Update the weights at ``rate_share`` of the peak rates, unless a gradient is not finite."""

    @property
    def health(self) -> Tensor:
        """``[skipped steps, of which in a row until now, gradient norm of the last step]`` on the device.

        Setting it is part of restoring a state.
        """

    @health.setter
    def health(self, health: Tensor) -> None: ...

    def fragments(self) -> Iterator[Fragment]:
        """This rank's share of the state, in one order on all ranks; writing into it changes the state."""

    def gathered(self, parameters: Sequence[nn.Parameter | None]) -> AbstractContextManager[None]:
        """Inside, these parameters are whole on every rank, to be read; all ranks must enter together."""

    def refresh(self) -> None:
        """Make the model compute with the state that was written into the fragments."""

    @property
    def updates(self) -> int:
        """Steps that counted; setting it is part of restoring a state."""

    @updates.setter
    def updates(self, count: int) -> None: ...

    @property
    def loss_scale(self) -> float:
        """By how much fp16 gradients are scaled up now; 1 in other precisions."""

    @loss_scale.setter
    def loss_scale(self, scale: float) -> None: ...


class Counting:
    """What every engine does alike around its optimizer: rates, and the counts of steps, on the device."""

    def __init__(self, optimizer: GuardedAdamW, device: torch.device) -> None:
        self._optimizer = optimizer
        self._health = torch.zeros(3, device=device)

    @property
    def health(self) -> Tensor:
        """As ``Engine``."""
        return self._health

    @health.setter
    def health(self, health: Tensor) -> None:
        self._health = health.to(self._health.device)

    @property
    def updates(self) -> int:
        """As ``Engine``."""
        return self._optimizer.updates

    @updates.setter
    def updates(self, count: int) -> None:
        self._optimizer.updates = count

    def _set_rates(self, rate_share: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate_share

    def _note(self, skipped: Tensor, norm: Tensor) -> None:
        """Take in one step: ``skipped`` is 1.0 or 0.0."""
        device = self._health.device
        skipped, norm = skipped.to(device), norm.float().to(device)
        total, streak, _ = self._health
        self._health = torch.stack([total + skipped, (streak + 1) * skipped, norm])
