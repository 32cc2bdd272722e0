"""The LLaMA-Adapter baseline: prompts with keys and values, under a softmax and a gate of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_core.model.attention import to_prompts
from ibllm_core.model.batch import Blocks
from ibllm_core.model.fusion.base import START_DEVIATION, Fusion, Media, split_heads, with_no_media
from ibllm_core.model.lora import base_weight


class AdapterPrefix(Fusion):
    """``o_h + tanh(g_lh) * softmax(q_h K^T / sqrt(D)) V`` with ``K, V = W_k P, W_v P`` and ``P = P_l + T_I``.

    ``W_k`` and ``W_v`` are the base's alone; prompts have no position, the text's softmax is left as it is. Follows
    LLaMA-Adapter (arXiv 2303.16199) with the released ``tanh``. ``gates`` are ``[N, H]``, ``prompts`` ``[N, K, C]``
    for the N layers of ``layers``. At one prompt this is ``value_gate``.
    """

    gates: nn.Parameter

    def __init__(self, layers: Sequence[int], num_heads: int, num_prompts: int, model_dim: int) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.gates = nn.Parameter(torch.zeros(len(self.layers), num_heads))
        self.prompts = nn.Parameter(torch.randn(len(self.layers), num_prompts, model_dim) * START_DEVIATION)

    def attach(self, layers: Sequence[nn.Module]) -> None:
        """Give the chosen layers' attention a second look (``model/attention.py`` asks for it)."""
        super().attach(layers)
        for row, index in enumerate(self.layers):
            attention: Any = layers[index].self_attn
            attention.look_at_prompts = partial(self._look, row)

    def condition(self, bound_SC: Tensor) -> Tensor:
        """Keys and values of the prompts, ``[N, S + 1, 2, K, G, D]``."""
        rows = []
        for row, index in enumerate(self.layers):
            attention: Any = self._layers[index].self_attn
            prompts_SKC = self.prompts[row] + bound_SC[:, None]
            projected = [F.linear(prompts_SKC, base_weight(p)) for p in (attention.k_proj, attention.v_proj)]
            rows.append(split_heads(torch.stack(projected, dim=1), attention.head_dim))
        return with_no_media(torch.stack(rows))

    def _look(
        self, row: int, queries_BHTD: Tensor, scale: float, media: Media | None, blocks: Blocks | None
    ) -> Tensor | None:
        """What the heads find among the prompts of their token's segment, gated: ``[B, T, H, D]``."""
        if media is None:
            return None
        keys_SKGD, values_SKGD = media.lines[row].unbind(dim=1)
        if blocks is None:
            segments_B = media.segments_BT.squeeze(1)
            found_BTHD = _to_prompts_of_rows(queries_BHTD, keys_SKGD, values_SKGD, segments_B, scale)
        else:
            found_BTHD = to_prompts(queries_BHTD[0].transpose(0, 1), keys_SKGD, values_SKGD, blocks, scale)[None]
        return self.gates[row].tanh()[:, None] * found_BTHD


def _to_prompts_of_rows(
    queries_BHTD: Tensor, keys_SKGD: Tensor, values_SKGD: Tensor, segments_B: Tensor, scale: float
) -> Tensor:
    """As ``to_prompts`` for generation, where a row is one sample."""
    assert segments_B.ndim == 1, "rows of several samples need blocks"
    groups = queries_BHTD.shape[1] // keys_SKGD.shape[2]
    keys_BHKD, values_BHKD = (
        states.index_select(0, segments_B).transpose(1, 2).repeat_interleave(groups, dim=1)
        for states in (keys_SKGD, values_SKGD)
    )
    return F.scaled_dot_product_attention(queries_BHTD, keys_BHKD, values_BHKD, scale=scale).transpose(1, 2)
