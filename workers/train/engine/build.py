"""The engine that a plan asks for."""

from __future__ import annotations

import os

import torch
from torch import nn

from ibllm_core.contract.job_spec import Hyperparameters, Offload
from workers.train.engine.base import Engine
from workers.train.engine.optimizer import parameter_groups
from workers.train.engine.replicated import Replicated

CPU = torch.device("cpu")


def init_distributed() -> None:
    """Join the process group of the gang; NCCL on GPUs, gloo on CPUs."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        # torchrun and Ray Train say which of the node's GPUs is this process's.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed reads it on import, and guesses wrongly without it
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if on_gpu else "gloo")


def build_engine(
    model: nn.Module,
    settings: Hyperparameters,
    *,
    zero_stage: int,
    dtype: torch.dtype,
    offload: Offload = "none",
    device: torch.device = CPU,
) -> Engine:
    """Wrap a model whose trained parameters require gradients; only those get optimizer state.

    The model comes in the host's memory, and goes to ``device`` whole, or at ZeRO 3 in parts.
    """
    if zero_stage < 3:
        model.to(device)
    groups = parameter_groups(model, settings)
    if zero_stage == 0:
        return Replicated(model, groups, clip=settings.gradient_clip)
    from workers.train.engine.zero import Zero  # DeepSpeed takes seconds to import

    return Zero(model, groups, stage=zero_stage, offload=offload, dtype=dtype, clip=settings.gradient_clip)
