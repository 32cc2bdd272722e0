"""Cutting a point cloud into groups: spread centres, and the nearest neighbours of each.

Shape suffixes: B batch, P points, G groups, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor


def group_points(points_BP3: Tensor, num_groups: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Centres ``[B, G, 3]`` and, relative to them, their neighbours ``[B, G, K, 3]``, nearest first.

    A centre is its own first neighbour. At least float32, so that the groups do not depend on the encoder's dtype.
    """
    points_BP3 = points_BP3.to(torch.promote_types(points_BP3.dtype, torch.float32))
    centres_BG3 = _gather(points_BP3, farthest_points(points_BP3, num_groups))
    # The faster way over |a|^2 + |b|^2 - 2ab loses the digits that tell close neighbours apart.
    distances_BGP = torch.cdist(centres_BG3, points_BP3, compute_mode="donot_use_mm_for_euclid_dist")
    nearest_BGK = distances_BGP.topk(group_size, largest=False).indices
    neighbours_BGK3 = _gather(points_BP3, nearest_BGK.flatten(1)).view(*nearest_BGK.shape, 3)
    return centres_BG3, neighbours_BGK3 - centres_BG3[:, :, None]


def farthest_points(points_BP3: Tensor, num_chosen: int) -> Tensor:
    """Farthest point sampling (Eldar et al. 1997): indices ``[B, num_chosen]``, each the farthest from those before.

    Starts at index 0, so that a cloud always has the same vector; the released code starts at a random point. Of
    points equally far the first one is taken.
    """
    chosen = [points_BP3.new_zeros(len(points_BP3), dtype=torch.long)]
    distances_BP = points_BP3.new_full(points_BP3.shape[:2], float("inf"))
    for _ in range(num_chosen - 1):
        latest_B13 = _gather(points_BP3, chosen[-1][:, None])
        distances_BP = torch.minimum(distances_BP, (points_BP3 - latest_B13).square().sum(-1))
        chosen.append(distances_BP.argmax(-1))
    return torch.stack(chosen, dim=1)


def _gather(points_BP3: Tensor, indices_BG: Tensor) -> Tensor:
    return points_BP3.gather(1, indices_BG[..., None].expand(-1, -1, 3))
