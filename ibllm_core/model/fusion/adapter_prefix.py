"""The LLaMA-Adapter baseline: prompts with keys and values, under a softmax and a gate of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ibllm_core.model.fusion.base import START_DEVIATION, Fusion, split_heads, with_no_media
from ibllm_core.model.lora import base_weight

ATTENTION = "sdpa_with_prefix"


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
        """Give the chosen layers' attention a second look, through transformers' registry of attentions."""
        super().attach(layers)
        AttentionInterface.register(ATTENTION, _attention_with_prefix)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        for row, index in enumerate(self.layers):
            attention: Any = layers[index].self_attn
            attention.look_at_prompts = partial(self._look, row)
            attention.config._attn_implementation = ATTENTION  # one configuration for all layers; others look nowhere

    def condition(self, bound_SC: Tensor) -> Tensor:
        """Keys and values of the prompts, ``[N, 2, S, K, G, D]``."""
        rows = []
        for row, index in enumerate(self.layers):
            attention: Any = self._layers[index].self_attn
            prompts_SKC = self.prompts[row] + bound_SC[:, None]
            projected = [F.linear(prompts_SKC, base_weight(p)) for p in (attention.k_proj, attention.v_proj)]
            rows.append(split_heads(torch.stack(projected), attention.head_dim))
        return with_no_media(torch.stack(rows), segment_dim=2)

    def _look(self, row: int, queries_BHTD: Tensor, scale: float) -> Tensor | None:
        """What the heads find among the prompts of their token's segment, gated: ``[B, T, H, D]``."""
        if self._active is None:
            return None
        keys_values = self._active.condition[row]
        num_segments, num_prompts = keys_values.shape[1:3]
        groups = queries_BHTD.shape[1] // keys_values.shape[3]
        # One list of all segments' prompts; the mask leaves each token those of its own segment.
        keys_HMD, values_HMD = keys_values.flatten(1, 2).transpose(1, 2).repeat_interleave(groups, dim=1)
        owners_M = torch.arange(num_segments, device=queries_BHTD.device).repeat_interleave(num_prompts)
        own_BTM = self._active.segments_BT[..., None] % num_segments == owners_M
        batch, _, tokens, _ = queries_BHTD.shape
        found_BHTD = F.scaled_dot_product_attention(
            queries_BHTD,
            keys_HMD.expand(batch, -1, -1, -1),
            values_HMD.expand(batch, -1, -1, -1),
            attn_mask=own_BTM.expand(-1, tokens, -1)[:, None],
            scale=scale,
        )
        return self.gates[row].tanh()[:, None] * found_BHTD.transpose(1, 2)


def _attention_with_prefix(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    output_BTHD, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    look = getattr(module, "look_at_prompts", None)
    found_BTHD = look(query, module.scaling) if look else None
    return (output_BTHD if found_BTHD is None else output_BTHD + found_BTHD), None
