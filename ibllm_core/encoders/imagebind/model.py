"""ImageBind put together. The keys of its state dict are those of the released checkpoints.

Shape suffixes: B batch, S clips of an input, N tokens, D width of a tower, E output dimension.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.imagebind.blocks import NORM_EPS, Trunk
from ibllm_core.encoders.imagebind.config import (
    AnySizes,
    ImageBindConfig,
    ImuSizes,
    PictureSizes,
    PointSizes,
    TextSizes,
    Tower,
    VisionSizes,
)
from ibllm_core.encoders.imagebind.points import PointTrunk
from ibllm_core.encoders.imagebind.stems import ImuStem, PictureStem, TextStem, VisionStem

# What a released model multiplies its unit vectors with; the text's is where its training began.
SCALES = {Tower.TEXT: 1 / 0.07, Tower.AUDIO: 20, Tower.DEPTH: 5, Tower.THERMAL: 10, Tower.IMU: 5, Tower.POINT: 1}
MAX_SCALE = 100


class ImageBind(nn.Module):
    """The towers of a config in eval mode, with zeros for what is not initialised otherwise.

    Build it on ``torch.device("meta")`` where weights follow.
    """

    def __init__(self, config: ImageBindConfig) -> None:
        super().__init__()
        self.config = config
        self.modality_preprocessors = nn.ModuleDict()
        self.modality_trunks = nn.ModuleDict()
        self.modality_heads = nn.ModuleDict()
        self.modality_postprocessors = nn.ModuleDict()
        for tower, sizes in config.towers.items():
            if isinstance(sizes, PointSizes):
                self.point_trunk = PointTrunk(sizes)
            else:
                self.modality_preprocessors[tower] = _stem(tower, sizes)
                self.modality_trunks[tower] = _trunk(sizes)
            self.modality_heads[tower] = _head(tower, sizes, config.output_dim)
            self.modality_postprocessors[tower] = _postprocessor(tower)
        self.requires_grad_(False).eval()

    def forward(self, modality: Modality, inputs: Tensor) -> Tensor:
        """What the released model returns, ``[B, E]`` in float32: unit vectors times a scale; vision has no scale.

        ``inputs`` are ``[B, *config.clip_shape(modality)]``, or ``[B, S, ...]`` with the S clips of each input, whose
        vectors are averaged and then no longer of that length.
        """
        if inputs.ndim == len(self.config.clip_shape(modality)) + 2:
            output_E = self._encode_clips(Tower.of(modality), inputs.flatten(0, 1))
            return output_E.view(*inputs.shape[:2], -1).mean(1)
        return self._encode_clips(Tower.of(modality), inputs)

    def _encode_clips(self, tower: Tower, clips: Tensor) -> Tensor:
        output_BE: Tensor = self.modality_postprocessors[tower](self.modality_heads[tower](self._pooled(tower, clips)))
        return output_BE

    def _pooled(self, tower: Tower, clips: Tensor) -> Tensor:
        """One hidden state a clip, ``[B, D]``."""
        if tower is Tower.POINT:
            pooled_BD: Tensor = self.point_trunk(clips)
            return pooled_BD
        stem, trunk = self.modality_preprocessors[tower], self.modality_trunks[tower]
        if isinstance(stem, TextStem):
            hidden_BND: Tensor = trunk(stem(clips), stem.mask)
            return hidden_BND[torch.arange(len(clips), device=clips.device), clips.argmax(-1)]
        hidden_BND = trunk(stem(clips))
        return hidden_BND[:, 0]


def tower_of(key: str) -> Tower | None:
    """The tower that a key of the state dict belongs to; None where no tower has such keys."""
    group, _, rest = key.partition(".")
    if group == "point_trunk":
        return Tower.POINT
    name = rest.partition(".")[0]
    if group.startswith("modality_") and name in Tower.__members__.values():
        return Tower(name)
    return None


class Unit(nn.Module):
    """To unit length, in float32."""

    def forward(self, vectors_BE: Tensor) -> Tensor:
        """``[B, E]`` to the same."""
        return F.normalize(vectors_BE.float(), dim=-1)


class Scale(nn.Module):
    """Multiplies by a learned or fixed factor, at most 100."""

    log_logit_scale: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("log_logit_scale", torch.tensor(scale).log())

    def forward(self, vectors_BE: Tensor) -> Tensor:
        """``[B, E]`` to the same."""
        return vectors_BE * self.log_logit_scale.float().exp().clip(max=MAX_SCALE)


def _stem(tower: Tower, sizes: VisionSizes | TextSizes | PictureSizes | ImuSizes) -> nn.Module:
    match sizes:
        case VisionSizes():
            return VisionStem(sizes)
        case TextSizes():
            return TextStem(sizes)
        case PictureSizes():
            return PictureStem(sizes, "depth_stem" if tower is Tower.DEPTH else "rgbt_stem")
        case ImuSizes():
            return ImuStem(sizes)
        case _:
            assert_never(sizes)


def _trunk(sizes: VisionSizes | TextSizes | PictureSizes | ImuSizes) -> Trunk:
    return Trunk(sizes, pre_norm=isinstance(sizes, VisionSizes), bias_kv=isinstance(sizes, PictureSizes | ImuSizes))


def _head(tower: Tower, sizes: AnySizes, output_dim: int) -> nn.Module:
    """A norm and a projection. Gaps in the names' numbers are modules without weights in the released model.

    The points' norm has the eps of the other heads, since no other is published.
    """
    width = sizes.projected_dim if isinstance(sizes, PointSizes) else sizes.width
    norm, projection = nn.LayerNorm(width, NORM_EPS), nn.Linear(width, output_dim, bias=False)
    if tower is Tower.TEXT:
        return nn.Sequential(OrderedDict(proj=nn.Sequential(norm, projection)))
    return nn.Sequential(OrderedDict({"0": norm, "3" if tower is Tower.IMU else "2": projection}))


def _postprocessor(tower: Tower) -> nn.Sequential:
    return nn.Sequential(Unit(), *([Scale(SCALES[tower])] if tower in SCALES else []))
