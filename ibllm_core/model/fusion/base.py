"""What a fusion is: how the bound vectors of a batch's media meet a frozen LLaMA.

A fusion turns bound vectors into a *condition*: everything that does not depend on the text, computed once a request.
With the segment of every token that makes the *media* of a forward pass, which travels through the backbone as the
keyword ``media`` of every layer and attention, where the fusion's hooks find it. Without it the backbone is the plain
LLaMA. Shape suffixes of this package: B rows, T tokens of a row, L layers, S segments, C model dimension, H heads, G
key-value heads, D head dimension, K prompts or media tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NO_SEGMENT = -1
# Prompts and offsets start small beside the bound vector (0.2 an element). Drawn from N(0, 1), as LLaMA-Adapter's,
# prompts are several times what W_k and W_v see after SmolLM2's norms (0.06 to 0.34), and training diverged.
START_DEVIATION = 0.02


@dataclass(frozen=True, kw_only=True)
class Media:
    """Lines of the condition, one a layer where the fusion has one a layer, and the segment of each token.

    ``segments_BT`` may be ``[B, 1]``, which holds for every token of the row; the last segment stands for no media.
    """

    lines: tuple[Tensor, ...]
    segments_BT: Tensor


class Fusion(nn.Module):
    """Base of the fusions. ``gates`` start at zero, so that the untouched model is the plain LLaMA exactly."""

    media_tokens = 0
    gates: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("gates", None)
        # A tuple, so that the backbone's layers do not become submodules of the fusion.
        self._layers: tuple[nn.Module, ...] = ()

    def attach(self, layers: Sequence[nn.Module]) -> None:
        """Hook into the decoder layers; called once, when the model is put together."""
        self._layers = tuple(layers)

    def condition(self, bound_SC: Tensor) -> Tensor:
        """What the media of the segments is to the layers, ``[layers, S + 1, ...]`` with "no media" last: zeros.

        A fusion that acts once has one line for all layers.
        """
        raise NotImplementedError

    def media(self, condition: Tensor, segments_BT: Tensor) -> Media:
        """The condition as tokens of segment ``s`` are to receive it; ``NO_SEGMENT`` receives nothing.

        Taken apart once: each layer that picked its own line from the whole would fill a gradient of the whole.
        """
        return Media(lines=condition.unbind(), segments_BT=segments_BT % condition.shape[1])

    def embed(self, embedded_BTC: Tensor, positions_BT: Tensor, media: Media) -> Tensor:
        """The input embeddings, with media tokens where the fusion has any."""
        del positions_BT, media
        return embedded_BTC


def of_tokens(line_SC: Tensor, segments_BT: Tensor) -> Tensor:
    """What each token receives, ``[B, T, C]``: the line of its segment."""
    received_BTC: Tensor = _OfTokens.apply(line_SC, segments_BT)  # type: ignore[no-untyped-call]
    return received_BTC


class _OfTokens(torch.autograd.Function):
    """Sums a segment's gradient in float32: in bfloat16, forty tokens one after the other lose two digits."""

    @staticmethod
    def forward(ctx: Any, line_SC: Tensor, segments_BT: Tensor) -> Tensor:
        ctx.save_for_backward(segments_BT)
        ctx.segments = len(line_SC)
        return line_SC.index_select(0, segments_BT.flatten()).view(*segments_BT.shape, -1)

    @staticmethod
    def backward(ctx: Any, gradient_BTC: Tensor) -> tuple[Tensor, None]:
        (segments_BT,) = ctx.saved_tensors
        precise = torch.promote_types(gradient_BTC.dtype, torch.float32)
        sums_SC = gradient_BTC.new_zeros(ctx.segments, gradient_BTC.shape[-1], dtype=precise)
        sums_SC.index_add_(0, segments_BT.flatten(), gradient_BTC.flatten(0, 1).to(precise))
        return sums_SC.to(gradient_BTC.dtype), None


def with_no_media(condition: Tensor) -> Tensor:
    """Append the segment of no media, zeros, to ``[layers, S, ...]``, where ``NO_SEGMENT`` finds it from the end."""
    nothing = condition.new_zeros(len(condition), 1, *condition.shape[2:])
    return torch.cat([condition, nothing], dim=1)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """``[..., heads * D]`` as ``[..., heads, D]``, for no segments too."""
    return x.view(*x.shape[:-1], x.shape[-1] // head_dim, head_dim)
