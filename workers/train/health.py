"""Steps that were not finite: counted on the device, known to the host two steps later, ended after three in a row."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

STREAK = 3
LAG = 2  # steps between a figure on the device and its reading: by then the device is past it


class DivergedError(Exception):
    """Three steps in a row had gradients that were not finite, the last of them ``step``."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class HealthReader:
    """Follows the engine's health without making the host wait for the device's present step."""

    def __init__(self, *, skipped: int, in_a_row: int) -> None:
        self._flying: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()
        self.skipped, self.in_a_row = skipped, in_a_row

    def see(self, step: int, health: Tensor) -> None:
        """Take in the health after a step; raises ``DivergedError`` once a streak is known."""
        if health.is_cuda:
            host = torch.empty(health.shape, dtype=health.dtype, pin_memory=True)
            host.copy_(health, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._flying.append((step, host, event))
        else:
            self._flying.append((step, health, None))
        while self._flying and (not health.is_cuda or len(self._flying) > LAG):
            self._read(*self._flying.popleft())

    def drain(self) -> None:
        """Know all that was taken in; waits for the device, and raises ``DivergedError`` as ``see``."""
        while self._flying:
            self._read(*self._flying.popleft())

    def _read(self, step: int, host: Tensor, event: torch.cuda.Event | None) -> None:
        if event is not None:
            event.synchronize()
        self.skipped, self.in_a_row = (int(count) for count in host[:2].tolist())
        if self.in_a_row >= STREAK:
            raise DivergedError(step)
