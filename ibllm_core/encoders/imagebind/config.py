"""The sizes of ImageBind's towers; the released ones are ``huge()``. Stored as JSON beside weights."""

from __future__ import annotations

from enum import StrEnum
from math import prod
from typing import Self, assert_never

from pydantic import Field, PositiveInt, model_validator

from ibllm_core.contract.base import Contract
from ibllm_core.contract.media import Modality


class Tower(StrEnum):
    """A network of ImageBind, by its name in the released keys; images and videos share one."""

    VISION = "vision"
    TEXT = "text"
    AUDIO = "audio"
    DEPTH = "depth"
    THERMAL = "thermal"
    IMU = "imu"
    POINT = "point"

    @classmethod
    def of(cls, modality: Modality) -> Tower:
        """The tower that encodes a modality."""
        return cls.VISION if modality in (Modality.IMAGE, Modality.VIDEO) else cls(modality.value)


class TransformerSizes(Contract):
    """Pre-norm blocks with an MLP of four times the width."""

    width: PositiveInt
    blocks: PositiveInt
    heads: PositiveInt

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}: change one of them")
        return self


class VisionSizes(TransformerSizes):
    """Square patches through all frames, without a norm of their own but with one before the blocks."""

    side: PositiveInt
    patch: PositiveInt
    frames: PositiveInt = 2

    @property
    def num_patches(self) -> int:
        """Tokens beside the class token."""
        return (self.side // self.patch) ** 2


class TextSizes(TransformerSizes):
    """Tokens that see only those before them; the one with the highest id ends the text and stands for it."""

    vocab_size: PositiveInt
    context: PositiveInt


class PictureSizes(TransformerSizes):
    """Pictures of one channel (spectrogram, depth, heat): normed patches, and a learned key and value a block."""

    input_shape: tuple[PositiveInt, PositiveInt]
    kernel: PositiveInt
    stride: PositiveInt

    @property
    def num_patches(self) -> int:
        """Tokens beside the class token; patches overlap where the stride is below the kernel."""
        return prod((size - self.kernel) // self.stride + 1 for size in self.input_shape)


class ImuSizes(TransformerSizes):
    """Normed windows of a signal, and a learned key and value a block."""

    axes: PositiveInt
    length: PositiveInt
    window: PositiveInt

    @property
    def num_patches(self) -> int:
        """Tokens beside the class token."""
        return self.length // self.window


class PointSizes(TransformerSizes):
    """Groups of neighbours, each encoded by a small PointNet into ``group_dim`` values, which must be even.

    ``projected_dim`` is what the trunk hands to its head.
    """

    num_points: PositiveInt
    num_groups: PositiveInt
    group_size: PositiveInt
    group_dim: PositiveInt = Field(multiple_of=2)
    projected_dim: PositiveInt


AnySizes = VisionSizes | TextSizes | PictureSizes | ImuSizes | PointSizes


class ImageBindConfig(Contract):
    """The towers that there are, None for those that there are not, and the width of their common space."""

    output_dim: PositiveInt = 1024
    vision: VisionSizes | None = None
    text: TextSizes | None = None
    audio: PictureSizes | None = None
    depth: PictureSizes | None = None
    thermal: PictureSizes | None = None
    imu: ImuSizes | None = None
    point: PointSizes | None = None

    @property
    def towers(self) -> dict[Tower, AnySizes]:
        """The sizes of the towers that there are."""
        return {tower: sizes for tower in Tower if (sizes := getattr(self, tower)) is not None}

    def only(self, *towers: Tower) -> ImageBindConfig:
        """The same with these towers alone, as far as there are such."""
        kept = {tower.value: sizes for tower, sizes in self.towers.items() if tower in towers}
        return ImageBindConfig.model_validate({"output_dim": self.output_dim, **kept})

    def clip_shape(self, modality: Modality) -> tuple[int, ...]:
        """The shape of one clip of a modality, without a batch; its tower must be there."""
        sizes = self.towers[Tower.of(modality)]
        match sizes:
            case VisionSizes(side=side, frames=frames):
                return (3, frames, side, side) if modality is Modality.VIDEO else (3, side, side)
            case TextSizes():
                return (sizes.context,)
            case PictureSizes():
                return (1, *sizes.input_shape)
            case ImuSizes():
                return (sizes.axes, sizes.length)
            case PointSizes():
                return (sizes.num_points, 3)
            case _:
                assert_never(sizes)


def huge() -> ImageBindConfig:
    """The released ``imagebind_huge`` (arXiv 2305.05665) with Point-Bind's encoder (arXiv 2309.00615)."""
    return ImageBindConfig(
        vision=VisionSizes(width=1280, blocks=32, heads=16, side=224, patch=14),
        text=TextSizes(width=1024, blocks=24, heads=16, vocab_size=49408, context=77),
        audio=PictureSizes(width=768, blocks=12, heads=12, input_shape=(128, 204), kernel=16, stride=10),
        depth=PictureSizes(width=384, blocks=12, heads=8, input_shape=(224, 224), kernel=16, stride=16),
        thermal=PictureSizes(width=768, blocks=12, heads=12, input_shape=(224, 224), kernel=16, stride=16),
        imu=ImuSizes(width=512, blocks=6, heads=8, axes=6, length=2000, window=8),
        point=PointSizes(
            width=384,
            blocks=12,
            heads=6,
            num_points=8192,
            num_groups=512,
            group_size=32,
            group_dim=256,
            projected_dim=512,
        ),
    )
