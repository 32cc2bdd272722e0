"""What is logged of a training: sums between two logged steps, and the metrics that they make."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ibllm_core.contract import metrics as names
from workers.train.feed import Step

LOGS_PER_TRAINING = 40
MAX_LOG_STEPS = 50
RATE_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class LoggedStep:
    """What is known at a logged step; steps count from 0, the state before training.

    ``is_evaluated`` says that its validation follows.
    """

    step: int
    total_steps: int
    metrics: dict[str, float]
    seconds_left: float
    is_evaluated: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What utilisation is measured against: ``flops_per_token`` of a training step, and this rank's product rate.

    A frozen base costs ``4 N`` a real token, N being the weights of the layers' products: 2 N forward and 2 N for the
    gradients of activations. ``product_rate`` is what this device reaches on such products, in FLOP/s.
    """

    flops_per_token: float
    product_rate: float


class Window:
    """Sums since the last logged step; losses stay on the device until it is closed."""

    def __init__(self, device: torch.device, *, loss: float = 0.0, steps: int = 0) -> None:
        """``loss`` and ``steps`` are what a checkpoint saved of the window; the loss is all ranks', so one has it."""
        self._loss = torch.tensor(loss, dtype=torch.float64, device=device)
        self.steps = steps
        self._tokens = self._positions = self._timed_steps = 0
        self._started = time.monotonic()

    def add(self, step: Step, share: Tensor) -> None:
        """Take in a step and this rank's share of its loss."""
        self._loss += share
        self.steps += 1
        self._timed_steps += 1
        self._tokens += step.tokens
        self._positions += step.positions

    def pause(self, seconds: float) -> None:
        """Leave out time in which nothing was trained."""
        self._started += seconds

    def loss_sum(self) -> float:
        """The steps' losses, summed over steps and ranks; all ranks must call it. Waits for the device."""
        total = self._loss.clone()
        dist.all_reduce(total)  # the ranks' shares add up to the global mean
        return float(total)

    def close(self, machine: Machine, world_size: int) -> dict[str, float]:
        """The metrics of the window; all ranks must call it."""
        loss = self.loss_sum() / self.steps
        seconds = time.monotonic() - self._started
        rate = self._tokens / seconds
        return {
            names.TRAIN_LOSS: loss,
            names.TRAIN_TOKENS_PER_SECOND: rate,
            names.TRAIN_USEFUL_TOKEN_SHARE: self._tokens / self._positions,
            names.TRAIN_FLOPS_UTILISATION: rate * machine.flops_per_token / (machine.product_rate * world_size),
        }

    @property
    def seconds_a_step(self) -> float:
        """Mean of the window so far."""
        return (time.monotonic() - self._started) / max(1, self._timed_steps)


def log_every(total_steps: int) -> int:
    """Steps between two logged ones: 40 lines for a short training, and every 50 steps of a long one."""
    return max(1, min(MAX_LOG_STEPS, total_steps // LOGS_PER_TRAINING))


def product_rate(device: torch.device, dtype: torch.dtype, *, tokens: int, model_dim: int, hidden_dim: int) -> float:
    """FLOP/s of a matrix product of a layer's shape, the best of several, measured in a fifth of a second."""
    left, right = torch.randn(tokens, model_dim), torch.randn(model_dim, hidden_dim)
    left, right = left.to(device, dtype), right.to(device, dtype)
    best, deadline = 0.0, time.perf_counter() + RATE_SECONDS
    while best == 0.0 or time.perf_counter() < deadline:
        started = time.perf_counter()
        for _ in range(4):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 4 * 2 * tokens * model_dim * hidden_dim / (time.perf_counter() - started))
    return best
