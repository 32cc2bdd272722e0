"""Small ImageBinds with random weights, and random inputs for them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.imagebind.config import (
    ImageBindConfig,
    ImuSizes,
    PictureSizes,
    PointSizes,
    TextSizes,
    VisionSizes,
)
from ibllm_core.encoders.imagebind.model import ImageBind
from ibllm_core.encoders.imagebind.weights import split

SMALL = ImageBindConfig(
    output_dim=16,
    vision=VisionSizes(width=32, blocks=2, heads=4, side=28, patch=14),
    text=TextSizes(width=24, blocks=2, heads=3, vocab_size=64, context=9),
    audio=PictureSizes(width=24, blocks=2, heads=2, input_shape=(36, 56), kernel=16, stride=10),
    depth=PictureSizes(width=16, blocks=1, heads=2, input_shape=(32, 32), kernel=16, stride=16),
    thermal=PictureSizes(width=24, blocks=1, heads=2, input_shape=(32, 32), kernel=16, stride=16),
    imu=ImuSizes(width=16, blocks=2, heads=2, axes=6, length=40, window=8),
    point=PointSizes(
        width=24, blocks=2, heads=2, num_points=64, num_groups=8, group_size=4, group_dim=16, projected_dim=20
    ),
)


# Of the released shapes, so that what is preprocessed fits, but narrow.
NARROW = ImageBindConfig(
    output_dim=64,
    vision=VisionSizes(width=64, blocks=1, heads=4, side=224, patch=14),
    audio=PictureSizes(width=48, blocks=1, heads=4, input_shape=(128, 204), kernel=16, stride=10),
)


def random_imagebind(config: ImageBindConfig = SMALL, seed: int = 0) -> ImageBind:
    """Every tensor random, so that none can be left out unseen; only the text's mask and counters are as they are."""
    torch.manual_seed(seed)
    model = ImageBind(config)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape)
            if key.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.is_floating_point() and not key.endswith("mask"):
                tensor.add_(0.2 * noise)
    return model


def write_pth(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    """A file as the released ones; by default of the small model."""
    torch.save(random_imagebind().state_dict() if state is None else state, path)
    return path


def write_narrow(folder: Path) -> Path:
    """Random weights of ``NARROW``, as `ibllm import-encoder` takes them."""
    folder.mkdir()
    split(write_pth(folder / "narrow.pth", random_imagebind(NARROW).state_dict()), folder / "split", NARROW)
    return folder / "split"


def random_clips(modality: Modality, *leading: int, config: ImageBindConfig = SMALL, seed: int = 0) -> Tensor:
    """Clips ``[*leading, *clip_shape]`` as ``encode`` takes them, pictures as floats."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*leading, *config.clip_shape(modality))
    if modality is Modality.TEXT:
        assert config.text
        return torch.randint(1, config.text.vocab_size, shape, generator=generator)
    return torch.randn(shape, generator=generator)
