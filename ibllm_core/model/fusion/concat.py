"""The LLaVA, MiniGPT-4 and PandaGPT baseline: projected media tokens before the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ibllm_core.model.fusion.base import START_DEVIATION, Fusion, Media, with_no_media


class Concat(Fusion):
    """``m_k = s_k * T_I + o_k`` takes positions 0 to K-1 of a sample, the text follows; causal attention does the rest.

    The bind network projects; a scale and an offset a token (``[K, C]`` each, element by element) tell the tokens
    apart, since an encoder gives one vector. At ``tokens`` 1 it is PandaGPT's prefix with our bind network.
    """

    def __init__(self, num_tokens: int, model_dim: int) -> None:
        super().__init__()
        self.media_tokens = num_tokens
        self.scale = nn.Parameter(torch.ones(num_tokens, model_dim))
        self.offset = nn.Parameter(torch.randn(num_tokens, model_dim) * START_DEVIATION)

    def condition(self, bound_SC: Tensor) -> Tensor:
        """The media tokens, ``[1, S + 1, K, C]``."""
        return with_no_media((self.scale * bound_SC[:, None] + self.offset)[None])

    def embed(self, embedded_BTC: Tensor, positions_BT: Tensor, media: Media) -> Tensor:
        """Put media tokens where a segment with media has its first K positions."""
        (line_SKC,) = media.lines
        segments_BT = media.segments_BT.expand_as(positions_BT)
        media_BTC = line_SKC[segments_BT, positions_BT.clamp(max=self.media_tokens - 1)]
        is_media_BT = (positions_BT < self.media_tokens) & (segments_BT < len(line_SKC) - 1)
        return torch.where(is_media_BT[..., None], media_BTC, embedded_BTC)
