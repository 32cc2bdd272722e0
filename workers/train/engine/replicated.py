"""ZeRO 0: every rank holds all trained state, and gradients are summed once a step.

Nothing is partitioned, so there is nothing for DeepSpeed to do. Weights, moments and gradients lie in one flat buffer
each: one sum over the ranks, one norm, one fused update a group, and a checkpoint copies whole stretches of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ibllm_core.model.batch import Batch
from ibllm_core.model.stages import trained_parameters
from workers.train.engine.base import Counting, Fragment
from workers.train.engine.optimizer import MOMENTS, GuardedAdamW

START_SCALE, GROWTH, BACKOFF, GROWTH_INTERVAL = 2.0**14, 2.0, 0.5, 1000  # of fp16's loss


class _Slot(NamedTuple):
    """A trained parameter, its float32 weight, and its place in its group's flat buffers."""

    name: str
    parameter: nn.Parameter
    master: Tensor
    flat: nn.Parameter
    place: slice


class Replicated(Counting):
    """An ``Engine`` without partitions."""

    zero_stage = 0

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]], *, clip: float) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._model, self._clip = model, clip
        names = {parameter: name for name, parameter in trained_parameters(model)}
        total = sum(parameter.numel() for group in groups for parameter in group["params"])
        device = groups[0]["params"][0].device
        self._gradients = torch.zeros(total, device=device)
        self._slots: list[_Slot] = []
        flat_groups = []
        end = 0
        for group in groups:
            first, end = end, end + sum(parameter.numel() for parameter in group["params"])
            flat = nn.Parameter(torch.zeros(end - first, device=device))
            flat.grad = self._gradients[first:end]
            start = 0
            for parameter in group["params"]:
                place = slice(start, start := start + parameter.numel())
                master = _adopt(parameter, flat.detach()[place], flat.grad[place])
                self._slots.append(_Slot(names[parameter], parameter, master, flat, place))
            flat_groups.append({**group, "params": [flat]})
        self._parameters: list[Tensor] = [slot.parameter for slot in self._slots]
        self._masters = [slot.master for slot in self._slots]
        self._is_low = any(parameter.dtype != torch.float32 for parameter in self._parameters)
        is_half = any(parameter.dtype == torch.float16 for parameter in self._parameters)
        self._scale = torch.full((), START_SCALE, device=device) if is_half else None
        self._growth = torch.zeros((), dtype=torch.int32, device=device)
        super().__init__(GuardedAdamW(flat_groups), device)
        self._optimizer.make_state([group["params"][0] for group in flat_groups])

    def forward(self, batch: Batch) -> Tensor:
        """As ``Engine``."""
        losses_N: Tensor = self._model(batch)
        return losses_N

    def backward(self, share: Tensor, *, is_last: bool) -> None:
        """As ``Engine``."""
        torch.autograd.backward(share if self._scale is None else share * self._scale)
        if is_last and self.world_size > 1:
            dist.all_reduce(self._gradients)

    def step(self, rate_share: float) -> None:
        """As ``Engine``."""
        norm = torch.linalg.vector_norm(self._gradients)
        if self._scale is not None:
            self._gradients.div_(self._scale)
            norm = norm / self._scale
        self._set_rates(rate_share)
        skipped = self._optimizer.guard(norm, self._clip)
        self._optimizer.step()
        self._note(skipped, norm)
        if self._scale is not None:
            torch._amp_update_scale_(self._scale, self._growth, skipped, GROWTH, BACKOFF, GROWTH_INTERVAL)
        self.refresh()
        self._gradients.zero_()

    def fragments(self) -> Iterator[Fragment]:
        """As ``Engine``; each is a whole parameter."""
        for slot in self._slots:
            state = self._optimizer.state[slot.flat]
            yield Fragment(
                name=slot.name,
                shape=tuple(slot.parameter.shape),
                start=0,
                weight=slot.master.view(-1),
                moments={moment: state[moment][slot.place] for moment in MOMENTS},
            )

    def gathered(self, parameters: Sequence[nn.Parameter | None]) -> AbstractContextManager[None]:
        """As ``Engine``; they are whole."""
        del parameters
        return nullcontext()

    @torch.no_grad()
    def refresh(self) -> None:
        """As ``Engine``."""
        if self._is_low:
            torch._foreach_copy_(self._parameters, self._masters)

    @property
    def loss_scale(self) -> float:
        """As ``Engine``."""
        return 1.0 if self._scale is None else float(self._scale)

    @loss_scale.setter
    def loss_scale(self, scale: float) -> None:
        if self._scale is not None:
            self._scale.fill_(scale)


def _adopt(parameter: nn.Parameter, weight: Tensor, gradient: Tensor) -> Tensor:
    """Give a parameter its places in the flat buffers; returns its float32 weight there, in the parameter's shape."""
    master, sums = weight.view_as(parameter), gradient.view_as(parameter)
    with torch.no_grad():
        master.copy_(parameter)
    if parameter.dtype == torch.float32:
        parameter.data, parameter.grad = master, sums
    else:
        parameter.register_post_accumulate_grad_hook(_adder(sums))  # type: ignore[no-untyped-call]
    return master


def _adder(sums: Tensor) -> Callable[[Tensor], None]:
    """Adds a low-precision gradient to its float32 sum, and frees it."""

    def add(parameter: Tensor) -> None:
        assert parameter.grad is not None
        sums.add_(parameter.grad)
        parameter.grad = None

    return add
