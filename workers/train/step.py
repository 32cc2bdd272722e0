"""One optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.train.engine.base import Engine
from workers.train.feed import Step


def train_step(engine: Engine, step: Step, rate_share: float, device: torch.device) -> Tensor:
    """Forward and backward of this rank's micro-batches, and the update; returns its share of the loss, on the device.

    Losses are summed over the global batch and divided by its label tokens, which every rank knows: neither packing,
    nor micro-batches, nor the number of ranks changes the gradient.
    """
    total = torch.zeros((), dtype=torch.float64, device=device)
    last = len(step.micro_batches) - 1
    for number, micro_batch in enumerate(step.micro_batches):
        losses_N = engine.forward(micro_batch.to(device))
        share = losses_N.sum() / step.num_labels
        engine.backward(share, is_last=number == last)
        total += share.detach()
    engine.step(rate_share)
    return total
