"""From a clip to tokens: what stands before the blocks. Names of modules are those of the released keys.

Shape suffixes: B batch, C channels, T frames or samples, Y X rows and columns, N tokens, D width.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_core.encoders.imagebind.config import ImuSizes, PictureSizes, TextSizes, VisionSizes

# torch's default, not the 1e-6 of the blocks.
STEM_NORM_EPS = 1e-5


class VisionStem(nn.Module):
    """Images ``[B, 3, Y, X]``, which count as clips that stand still, or clips ``[B, 3, T, Y, X]``."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.frames = sizes.frames
        self.cls_token = _class_token(sizes.width)
        patches = Patches((3, sizes.frames), sizes.patch, sizes.patch, sizes.width)
        self.rgbt_stem = _named(proj=nn.Sequential(OrderedDict({"1": patches})))
        self.pos_embedding_helper = Positions(sizes.num_patches, sizes.width)

    def forward(self, clips: Tensor) -> Tensor:
        """To tokens ``[B, N, D]``."""
        if clips.ndim == 4:
            clips = clips[:, :, None].expand(-1, -1, self.frames, -1, -1)
        return with_class(self.cls_token, self.rgbt_stem(clips), self.pos_embedding_helper.pos_embed)


class PictureStem(nn.Module):
    """Pictures ``[B, 1, Y, X]``; the released keys call the stem ``depth_stem`` or ``rgbt_stem``."""

    def __init__(self, sizes: PictureSizes, stem: str) -> None:
        super().__init__()
        self.stem = stem
        self.cls_token = _class_token(sizes.width)
        patches = Patches((1,), sizes.kernel, sizes.stride, sizes.width)
        self.add_module(stem, _named(proj=patches, norm_layer=nn.LayerNorm(sizes.width, STEM_NORM_EPS)))
        self.pos_embedding_helper = Positions(sizes.num_patches, sizes.width)

    def forward(self, pictures_BCYX: Tensor) -> Tensor:
        """To tokens ``[B, N, D]``."""
        tokens_BND = self.get_submodule(self.stem)(pictures_BCYX)
        return with_class(self.cls_token, tokens_BND, self.pos_embedding_helper.pos_embed)


class ImuStem(nn.Module):
    """Signals ``[B, C, T]`` of C axes, in windows that do not overlap, each flattened axis by axis."""

    def __init__(self, sizes: ImuSizes) -> None:
        super().__init__()
        self.window = sizes.window
        self.cls_token = _class_token(sizes.width)
        self.imu_stem = _named(
            proj=nn.Linear(sizes.axes * sizes.window, sizes.width, bias=False),
            norm_layer=nn.LayerNorm(sizes.width, STEM_NORM_EPS),
        )
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + sizes.num_patches, sizes.width))

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """To tokens ``[B, N, D]``."""
        windows = signals_BCT.unfold(-1, self.window, self.window).transpose(1, 2).flatten(2)
        tokens_BND = self.imu_stem(windows.to(self.pos_embed.dtype))
        return with_class(self.cls_token, tokens_BND, self.pos_embed)


class TextStem(nn.Module):
    """Token ids ``[B, N]``; ``mask`` hides from each token those after it."""

    mask: Tensor

    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocab_size, sizes.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes.context, sizes.width))
        self.register_buffer("mask", torch.full((sizes.context, sizes.context), float("-inf")).triu(1))

    def forward(self, ids_BN: Tensor) -> Tensor:
        """To tokens ``[B, N, D]``."""
        tokens_BND: Tensor = self.token_embedding(ids_BN) + self.pos_embed
        return tokens_BND


class Patches(nn.Module):
    """A convolution that takes all frames at once, as the matrix product that it is.

    cuDNN would round float32 to TF32, and might sum in another order on another machine. ``[B, *channels, Y, X]`` to
    ``[B, N, D]``, patches row by row.
    """

    def __init__(self, channels: tuple[int, ...], kernel: int, stride: int, width: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.weight = nn.Parameter(torch.zeros(width, *channels, kernel, kernel))

    def forward(self, clips: Tensor) -> Tensor:
        """Integers and floats of any kind to tokens in the weights' dtype."""
        planes_BCYX = clips.flatten(1, -3).to(self.weight.dtype)
        patches_BKN = F.unfold(planes_BCYX, self.kernel, stride=self.stride)
        return F.linear(patches_BKN.transpose(1, 2), self.weight.flatten(1))


class Positions(nn.Module):
    """A learned vector for the class token and each patch."""

    def __init__(self, num_patches: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, width))


def with_class(class_11D: Tensor, tokens_BND: Tensor, positions_1ND: Tensor) -> Tensor:
    """The class token, then the others, all with their positions."""
    return torch.cat([class_11D.expand(len(tokens_BND), -1, -1), tokens_BND], dim=1) + positions_1ND


def _class_token(width: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, 1, width))


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))
