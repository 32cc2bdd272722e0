"""The loss of label tokens through a frozen output head.

Shape suffixes: N label tokens, C model dimension, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LOGIT_ROWS = {"cpu": 256}  # of a matrix product: full speed, and 25 MB of bf16 at SmolLM2's vocabulary
SOFTMAX_ROWS = {"cpu": 8}  # whose float32 copies stay in a core's cache: a softmax in half the time
OTHER_ROWS = 2048


def frozen_head_losses(hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor) -> Tensor:
    """Cross-entropy of each label token, ``[N]`` in float32 or better; no gradient for the head.

    The slope of a token's loss is made together with it, some rows at a time, so that the logits of a batch never lie
    in memory together: ``(softmax - target) W`` of each token, which the backward pass multiplies by its gradient.
    """
    assert not weight_VC.requires_grad, "no stage trains the head"
    losses_N: Tensor = _FrozenHead.apply(hidden_NC, weight_VC, targets_N)  # type: ignore[no-untyped-call]
    return losses_N


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor) -> Tensor:
        precise = torch.promote_types(hidden_NC.dtype, torch.float32)
        losses_N = hidden_NC.new_empty(len(hidden_NC), dtype=precise)
        slopes_NC = torch.empty_like(hidden_NC) if ctx.needs_input_grad[0] else None
        device = hidden_NC.device.type
        logit_rows, softmax_rows = LOGIT_ROWS.get(device, OTHER_ROWS), SOFTMAX_ROWS.get(device, OTHER_ROWS)
        for start in range(0, len(hidden_NC), logit_rows):
            chunk = slice(start, start + logit_rows)
            logits_NV = F.linear(hidden_NC[chunk], weight_VC)
            rows = (logits_NV, targets_N[chunk], losses_N[chunk])
            parts = zip(*(torch.split(x, softmax_rows) for x in rows), strict=True)
            for part_NV, part_N, found_N in parts:
                logs_NV = part_NV.to(precise).log_softmax(dim=-1)
                torch.neg(logs_NV.gather(1, part_N[:, None])[:, 0], out=found_N)
                if slopes_NC is not None:  # the logits have served: their place takes the slopes by them
                    part_NV.copy_(_softmax_less_target(logs_NV, part_N))
            if slopes_NC is not None:
                torch.mm(logits_NV, weight_VC, out=slopes_NC[chunk])
        if slopes_NC is not None:
            ctx.save_for_backward(slopes_NC)
        return losses_N

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None, None]:
        (slopes_NC,) = ctx.saved_tensors
        return (slopes_NC * gradient_N[:, None]).to(slopes_NC.dtype), None, None


def _softmax_less_target(logs_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Exponentiates in place."""
    minus_N1 = logs_NV.new_full((len(targets_N), 1), -1)
    return logs_NV.exp_().scatter_add_(1, targets_N[:, None], minus_N1)
