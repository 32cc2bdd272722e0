"""What trains at which rate, and AdamW that is told on the device whether a step counts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.model.stages import group_of, trained_parameters

ADAM_BETAS = (0.9, 0.95)  # the paper's
MOMENTS = ("exp_avg", "exp_avg_sq")
LAYER = re.compile(r"\.layers\.(\d+)\.")


def parameter_groups(model: nn.Module, settings: Hyperparameters) -> list[dict[str, Any]]:
    """Trained parameters by rate and decay: ``lr`` and ``peak_lr``, ``weight_decay``, ``params``.

    Gates have a rate of their own. Only matrices decay: decay would pull a gate back to the zero that it starts from.
    """
    num_layers = 1 + max((int(found[1]) for name, _ in model.named_parameters() if (found := LAYER.search(name))))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained_parameters(model):
        is_gate = group_of(name) == "gates"
        rate = settings.gate_learning_rate if is_gate else settings.learning_rate
        if found := LAYER.search(name):
            rate *= settings.layer_decay ** (num_layers - 1 - int(found[1]))
        decay = settings.weight_decay if parameter.ndim > 1 and not is_gate else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def rate_share(step: int, total_steps: int, warmup_steps: int, final_share: float = 0.0) -> float:
    """Linear warm-up, then half a cosine to ``final_share``: the share of the peak rate at a step (from 0)."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * done))


def warmup_steps(settings: Hyperparameters, total_steps: int) -> int:
    """The steps of the warm-up, however it was given."""
    if settings.warmup_steps is not None:
        return settings.warmup_steps
    if settings.warmup_epochs is not None:
        return round(settings.warmup_epochs * total_steps / settings.n_epochs)
    return max(1, round(settings.warmup_share * total_steps))


class GuardedAdamW(torch.optim.AdamW):
    """torch's fused AdamW; ``guard`` decides on the device, without a look at it, whether the next step counts.

    Uses what torch's own gradient scaler uses: the kernel divides gradients by ``grad_scale``, and leaves weights,
    moments and step count alone where ``found_inf`` is 1.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, betas=ADAM_BETAS, fused=True)

    def guard(self, norm: Tensor, clip: float) -> Tensor:
        """Clip the next step's gradients by their global norm, or skip it where that is not finite.

        Returns 1.0 for a step that is skipped, else 0.0, on the device.
        """
        self.found_inf = norm.isfinite().logical_not().float()
        self.grad_scale = (norm / clip).clamp(min=1.0)
        return self.found_inf

    def make_state(self, parameters: Iterable[Tensor]) -> None:
        """Moments of zero, before the first step: a checkpoint can be put into them.

        ``parameters`` are what the steps will be taken on; ZeRO puts its flat partitions in the place of the model's.
        """
        for parameter in parameters:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                **{name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in MOMENTS},
            }

    @property
    def updates(self) -> int:
        """Steps that counted."""
        return max((int(state["step"]) for state in self.state.values()), default=0)

    @updates.setter
    def updates(self, count: int) -> None:
        for state in self.state.values():
            state["step"].fill_(count)
