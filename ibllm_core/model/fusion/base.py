"""What a fusion is: how the bound vectors of a batch's media meet a frozen LLaMA.

A fusion turns bound vectors into a *condition* (everything that does not depend on the text, computed once a request)
and, while that is in use, lets each token receive what belongs to its segment. Outside of ``using`` the backbone is
the plain LLaMA. Shape suffixes of this package: B rows, T tokens of a row, L layers, S segments, C model dimension, H
heads, G key-value heads, D head dimension, K prompts or media tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NO_SEGMENT = -1
# Prompts and offsets start small beside the bound vector (0.2 an element). Drawn from N(0, 1), as LLaMA-Adapter's,
# prompts are several times what W_k and W_v see after SmolLM2's norms (0.06 to 0.34), and training diverged.
START_DEVIATION = 0.02


@dataclass(frozen=True, kw_only=True)
class Active:
    """The condition in use, and for each token the segment it belongs to, or ``NO_SEGMENT``."""

    condition: Tensor
    segments_BT: Tensor


class Fusion(nn.Module):
    """Base of the fusions. ``gates`` start at zero, so that the untouched model is the plain LLaMA exactly."""

    media_tokens = 0
    gates: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("gates", None)
        self._active: Active | None = None
        # A tuple, so that the backbone's layers do not become submodules of the fusion.
        self._layers: tuple[nn.Module, ...] = ()

    def attach(self, layers: Sequence[nn.Module]) -> None:
        """Hook into the decoder layers; called once, when the model is put together."""
        self._layers = tuple(layers)

    def condition(self, bound_SC: Tensor) -> Tensor:
        """What the media of the segments is to the layers; its last segment is "no media": zeros."""
        raise NotImplementedError

    def embed(self, embedded_BTC: Tensor, positions_BT: Tensor) -> Tensor:
        """The input embeddings, with media tokens where the fusion has any."""
        del positions_BT
        return embedded_BTC

    @contextmanager
    def using(self, condition: Tensor, segments_BT: Tensor) -> Iterator[None]:
        """Inside, tokens of segment ``s`` receive ``condition`` of ``s``; ``NO_SEGMENT`` receives nothing.

        ``segments_BT`` may be ``[B, 1]``, which holds for every token of the row. Not for concurrent use.
        """
        self._active = Active(condition=condition, segments_BT=segments_BT)
        try:
            yield
        finally:
            self._active = None


def with_no_media(condition: Tensor, segment_dim: int) -> Tensor:
    """Append a segment of zeros, which the index ``NO_SEGMENT`` picks."""
    shape = list(condition.shape)
    shape[segment_dim] = 1
    return torch.cat([condition, condition.new_zeros(shape)], dim=segment_dim)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """``[..., heads * D]`` as ``[..., heads, D]``, for no segments too."""
    return x.view(*x.shape[:-1], x.shape[-1] // head_dim, head_dim)
