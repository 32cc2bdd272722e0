"""The transformer that six of the seven towers share. Names of modules are those of the released keys.

Shape suffixes: B batch, N tokens, M tokens that are looked at, D width, H heads, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_core.encoders.imagebind.config import TransformerSizes

NORM_EPS = 1e-6
MLP_RATIO = 4


class Trunk(nn.Module):
    """Pre-norm blocks, with a norm before the first where ``pre_norm``; ``[B, N, D]`` to the same."""

    def __init__(self, sizes: TransformerSizes, *, pre_norm: bool = False, bias_kv: bool = False) -> None:
        super().__init__()
        self.pre_transformer_layer = nn.Sequential(*([nn.LayerNorm(sizes.width, NORM_EPS)] if pre_norm else []))
        self.blocks = nn.ModuleList(Block(sizes, bias_kv) for _ in range(sizes.blocks))

    def forward(self, tokens_BND: Tensor, mask_NN: Tensor | None = None) -> Tensor:
        """``mask_NN`` is added to the attention's scores; blocks with a learned key take none."""
        hidden_BND: Tensor = self.pre_transformer_layer(tokens_BND)
        for block in self.blocks:
            hidden_BND = block(hidden_BND, mask_NN)
        return hidden_BND


class Block(nn.Module):
    """``x + attn(norm_1(x))``, then ``x + mlp(norm_2(x))``."""

    def __init__(self, sizes: TransformerSizes, bias_kv: bool) -> None:
        super().__init__()
        self.attn = Attention(sizes.width, sizes.heads, bias_kv)
        self.norm_1 = nn.LayerNorm(sizes.width, NORM_EPS)
        self.mlp = Mlp(sizes.width)
        self.norm_2 = nn.LayerNorm(sizes.width, NORM_EPS)

    def forward(self, hidden_BND: Tensor, mask_NN: Tensor | None) -> Tensor:
        """``[B, N, D]`` to the same."""
        hidden_BND = hidden_BND + self.attn(self.norm_1(hidden_BND), mask_NN)
        output_BND: Tensor = hidden_BND + self.mlp(self.norm_2(hidden_BND))
        return output_BND


class Attention(nn.Module):
    """What ``nn.MultiheadAttention`` computes, under its parameters' names.

    With ``bias_kv`` every token also sees one learned key and value, which are not projected.
    """

    def __init__(self, width: int, heads: int, bias_kv: bool) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.bias_k = nn.Parameter(torch.zeros(1, 1, width)) if bias_kv else None
        self.bias_v = nn.Parameter(torch.zeros(1, 1, width)) if bias_kv else None
        self.out_proj = nn.Linear(width, width)

    def forward(self, normed_BND: Tensor, mask_NN: Tensor | None) -> Tensor:
        """``[B, N, D]`` to the same; ``mask_NN`` needs blocks without a learned key."""
        queries_BND, keys_BMD, values_BMD = F.linear(normed_BND, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        if self.bias_k is not None and self.bias_v is not None:
            batch = len(normed_BND)
            keys_BMD = torch.cat([keys_BMD, self.bias_k.expand(batch, -1, -1)], dim=1)
            values_BMD = torch.cat([values_BMD, self.bias_v.expand(batch, -1, -1)], dim=1)
        projected: Tensor = self.out_proj(attend(queries_BND, keys_BMD, values_BMD, self.heads, mask_NN))
        return projected


class Mlp(nn.Module):
    """``fc2(gelu(fc1(x)))`` with the exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, normed_BND: Tensor) -> Tensor:
        """``[B, N, D]`` to the same."""
        projected: Tensor = self.fc2(F.gelu(self.fc1(normed_BND)))
        return projected


def attend(
    queries_BND: Tensor, keys_BMD: Tensor, values_BMD: Tensor, heads: int, mask_NM: Tensor | None = None
) -> Tensor:
    """``softmax(q k^T / sqrt(d) + mask) v`` of every head, the heads side by side: ``[B, N, D]``."""
    queries_BHNd, keys_BHMd, values_BHMd = (
        tensor.view(*tensor.shape[:2], heads, -1).transpose(1, 2) for tensor in (queries_BND, keys_BMD, values_BMD)
    )
    found_BHNd = F.scaled_dot_product_attention(queries_BHNd, keys_BHMd, values_BHMd, attn_mask=mask_NM)
    return found_BHNd.transpose(1, 2).flatten(2)
