"""The DeepSpeed engine around the trainable parameters: precision, parameter groups, learning-rate schedule."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.model.stages import group_of, trained_parameters

ADAM_BETAS = (0.9, 0.95)  # the paper's


@dataclass(frozen=True, kw_only=True)
class Engine:
    """DeepSpeed's engine, and the rank and size of its world."""

    deepspeed: Any
    rank: int
    world_size: int

    def set_learning_rates(self, scale: float) -> None:
        """Give each parameter group ``scale`` times its peak rate."""
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * scale

    def grad_norm(self) -> float:
        """The gradient's norm of the last step, before clipping; the same on every rank."""
        return float(self.deepspeed.get_global_grad_norm() or 0.0)


def init_distributed() -> None:
    """Join the process group that Ray Train laid out; NCCL on GPUs, gloo on CPUs."""
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed reads it on import, and guesses wrongly without it
    import deepspeed

    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo")


def build_engine(model: nn.Module, settings: Hyperparameters, *, zero_stage: int, dtype: torch.dtype) -> Engine:
    """Wrap a model whose trained parameters require gradients; only those go to the optimizer."""
    import deepspeed
    import torch.distributed as dist

    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings),
        betas=ADAM_BETAS,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    wrapped, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": settings.gradient_clip,
            "zero_optimization": {"stage": zero_stage},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": dtype == torch.bfloat16},
        },
    )
    return Engine(deepspeed=wrapped, rank=dist.get_rank(), world_size=dist.get_world_size())


def parameter_groups(model: nn.Module, settings: Hyperparameters) -> list[dict[str, Any]]:
    """What trains, the gates apart: decay would pull a gate back to the zero that it starts from."""
    gates = [p for name, p in trained_parameters(model) if group_of(name) == "gates"]
    others = [p for name, p in trained_parameters(model) if group_of(name) != "gates"]
    rate, gate_rate = settings.learning_rate, settings.gate_learning_rate
    groups: list[dict[str, Any]] = [
        {"params": others, "lr": rate, "peak_lr": rate},
        {"params": gates, "lr": gate_rate, "peak_lr": gate_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]  # concat has no gates, and some stages freeze them


def schedule(step: int, total_steps: int, warmup_share: float) -> float:
    """Linear warm-up, then half a cosine to zero: the share of the peak rate at a step (from 0)."""
    warmup = max(1, round(warmup_share * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))


def train_step(engine: Engine, batch: Any, num_labels: int) -> Tensor:
    """One optimizer step; returns this rank's share of the loss, on the device.

    The loss is summed over the global batch and divided by its ``num_labels``. DeepSpeed averages gradients over
    the ranks, so that each rank's sum is scaled up by their number.
    """
    losses_N: Tensor = engine.deepspeed(batch)
    share = losses_N.sum() / num_labels
    engine.deepspeed.backward(share * engine.world_size)
    engine.deepspeed.step()
    return share.detach()
