"""Point-Bind's encoder of point clouds, a Point-BERT (arXiv 2111.14819). Modules are named as the released keys.

Shape suffixes: B batch, P points, G groups, K neighbours of a group, N tokens, D width, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_core.encoders.imagebind.blocks import Mlp, attend
from ibllm_core.encoders.imagebind.config import PointSizes
from ibllm_core.encoders.imagebind.grouping import group_points

POINT_NORM_EPS = 1e-5
POSITION_HIDDEN = 128


class PointTrunk(nn.Module):
    """Clouds ``[B, P, 3]`` to ``[B, projected_dim]``: the class token beside the groups' maximum, projected."""

    def __init__(self, sizes: PointSizes) -> None:
        super().__init__()
        self.point_encoder = PointEncoder(sizes)
        self.pc_projection = nn.Parameter(torch.zeros(2 * sizes.width, sizes.projected_dim))

    def forward(self, points_BP3: Tensor) -> Tensor:
        """``[B, P, 3]`` to ``[B, projected_dim]``."""
        hidden_BND = self.point_encoder(points_BP3)
        return torch.cat([hidden_BND[:, 0], hidden_BND[:, 1:].amax(1)], dim=-1) @ self.pc_projection


class PointEncoder(nn.Module):
    """Clouds ``[B, P, 3]`` to normed hidden states ``[B, 1 + G, D]``; positions are added again in every block."""

    def __init__(self, sizes: PointSizes) -> None:
        super().__init__()
        self.num_groups, self.group_size = sizes.num_groups, sizes.group_size
        self.encoder = GroupEncoder(sizes.group_dim)
        self.reduce_dim = nn.Linear(sizes.group_dim, sizes.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = nn.Sequential(
            nn.Linear(3, POSITION_HIDDEN), nn.GELU(), nn.Linear(POSITION_HIDDEN, sizes.width)
        )
        self.blocks = PointBlocks(sizes)
        self.norm = nn.LayerNorm(sizes.width, POINT_NORM_EPS)

    def forward(self, points_BP3: Tensor) -> Tensor:
        """``[B, P, 3]`` to ``[B, 1 + G, D]``."""
        centres_BG3, groups_BGK3 = group_points(points_BP3, self.num_groups, self.group_size)
        dtype = self.cls_token.dtype
        groups_BGD = self.reduce_dim(self.encoder(groups_BGK3.to(dtype)))
        tokens_BND = torch.cat([self.cls_token.expand(len(points_BP3), -1, -1), groups_BGD], dim=1)
        places_BGD = self.pos_embed(centres_BG3.to(dtype))
        places_BND = torch.cat([self.cls_pos.expand(len(points_BP3), -1, -1), places_BGD], dim=1)
        normed_BND: Tensor = self.norm(self.blocks(tokens_BND, places_BND))
        return normed_BND


class GroupEncoder(nn.Module):
    """A small PointNet: groups ``[B, G, K, 3]`` to ``[B, G, C]``, whatever the order of their points."""

    def __init__(self, group_dim: int) -> None:
        super().__init__()
        self.first_conv = _pointwise_mlp(3, group_dim // 2, group_dim)
        self.second_conv = _pointwise_mlp(2 * group_dim, 2 * group_dim, group_dim)

    def forward(self, groups_BGK3: Tensor) -> Tensor:
        """``[B, G, K, 3]`` to ``[B, G, C]``."""
        local_BGKC = self._each(self.first_conv, groups_BGK3)
        whole_BGKC = local_BGKC.amax(2, keepdim=True).expand_as(local_BGKC)
        return self._each(self.second_conv, torch.cat([whole_BGKC, local_BGKC], dim=-1)).amax(2)

    def _each(self, network: nn.Module, points_BGKC: Tensor) -> Tensor:
        """Apply to every point; ``nn.BatchNorm1d`` wants one dimension before the channels."""
        encoded: Tensor = network(points_BGKC.flatten(0, 2))
        return encoded.view(*points_BGKC.shape[:3], -1)


class PointBlocks(nn.Module):
    """The list of blocks, one level down in the released keys."""

    def __init__(self, sizes: PointSizes) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PointBlock(sizes.width, sizes.heads) for _ in range(sizes.blocks))

    def forward(self, hidden_BND: Tensor, places_BND: Tensor) -> Tensor:
        """``[B, N, D]`` to the same."""
        for block in self.blocks:
            hidden_BND = block(hidden_BND + places_BND)
        return hidden_BND


class PointBlock(nn.Module):
    """A pre-norm block under the names of the point encoder."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, POINT_NORM_EPS)
        self.attn = PointAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, POINT_NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, hidden_BND: Tensor) -> Tensor:
        """``[B, N, D]`` to the same."""
        hidden_BND = hidden_BND + self.attn(self.norm1(hidden_BND))
        output_BND: Tensor = hidden_BND + self.mlp(self.norm2(hidden_BND))
        return output_BND


class PointAttention(nn.Module):
    """Self-attention without biases on queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, normed_BND: Tensor) -> Tensor:
        """``[B, N, D]`` to the same."""
        queries_BND, keys_BND, values_BND = self.qkv(normed_BND).chunk(3, -1)
        projected: Tensor = self.proj(attend(queries_BND, keys_BND, values_BND, self.heads))
        return projected


class PointwiseConv(nn.Module):
    """A convolution of kernel 1 over points ``[..., C]``, as the matrix product that it is."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, channels, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, points: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., out_channels]``."""
        return F.linear(points, self.weight[..., 0], self.bias)


def _pointwise_mlp(channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        PointwiseConv(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), PointwiseConv(hidden, out_channels)
    )
