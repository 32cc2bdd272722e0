"""Pictures for ImageBind's vision tower: RGB on white, 224 x 224, CLIP's mean and standard deviation."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ibllm_core.encoders.preprocess.pictures import MAX_PIXELS, SIDE, centre_square, decoded
from ibllm_core.encoders.preprocess.refusal import refusing, unusable

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CROP_AREA = (0.9, 1.0)
CROP_ASPECT = (0.75, 1.3333)
CROP_TRIES = 10

MEDIUM = "a picture"
WHITE = (255, 255, 255)
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def centre_crop(content: bytes) -> Tensor:
    """The transform of evaluation: short side to 224, bicubic, centre cut; uint8 ``[3, 224, 224]``.

    Raises ``InvalidDataError`` as ``open_rgb`` does.
    """
    return _tensor(centre_square(open_rgb(content), Image.Resampling.BICUBIC))


def random_crop(content: bytes, seed: int) -> Tensor:
    """The transform of training: a random 90 to 100 % of the picture, bicubic; uint8 ``[3, 224, 224]``.

    A pure function of content and seed. Raises ``InvalidDataError`` as ``open_rgb`` does.
    """
    image = open_rgb(content)
    box = _random_box(*image.size, Random(seed))  # noqa: S311 - no secret hangs on a crop
    return _tensor(image.crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def normalise(pixels: Tensor) -> Tensor:
    """``(pixels / 255 - MEAN) / STD`` as float32, for uint8 pictures or clips.

    The channels are the third axis from the end of pictures ``[..., 3, H, W]``, the fourth of clips
    ``[..., 3, T, H, W]``; where the third has size 3 it is taken, so T must not be 3 (ImageBind's is 2).
    """
    axis = next((axis for axis in (-3, -4) if pixels.ndim >= -axis and pixels.shape[axis] == len(MEAN)), None)
    if axis is None:
        raise ValueError(f"shape {list(pixels.shape)} has three channels neither third nor fourth from the end")
    shape = (len(MEAN),) + (1,) * (-axis - 1)
    mean, std = (torch.tensor(values, device=pixels.device).view(shape) for values in (MEAN, STD))
    return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)


def open_rgb(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture as people see it: upright by its EXIF orientation, alpha on white, 8-bit RGB.

    PNG, JPEG, WebP, GIF (first frame), BMP, TIFF and PPM are told apart by content. Raises ``InvalidDataError`` for
    anything else, for truncated files, and for declared sizes over ``max_pixels`` before a pixel is decoded.
    """
    image = decoded(content, medium=MEDIUM, max_pixels=max_pixels)
    with refusing(MEDIUM):
        turn = UPRIGHT.get(image.getexif().get(EXIF_ORIENTATION, 1))
        rgb = _on_white(_eight_bit(image))
        return rgb if turn is None else rgb.transpose(turn)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey, where Pillow's own conversion would clip at 255."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise unusable(MEDIUM, "holds 32-bit numbers whose white is unknown, save it with 8 or 16 bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, WHITE)
    canvas.paste(rgba, mask=rgba)
    return canvas


def _random_box(width: int, height: int, random: Random) -> tuple[int, int, int, int]:
    """A box as of torchvision's RandomResizedCrop; where ten tries do not fit, the largest centred one that does.

    Draws by ``Random.random`` alone, the one method whose sequence Python keeps from version to version.
    """
    lowest, highest = (math.log(aspect) for aspect in CROP_ASPECT)
    for _ in range(CROP_TRIES):
        area = width * height * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * random.random())
        aspect = math.exp(lowest + (highest - lowest) * random.random())
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left = int(random.random() * (width - across + 1))
            top = int(random.random() * (height - down + 1))
            return left, top, left + across, top + down
    across = min(width, round(height * CROP_ASPECT[1]))
    down = min(height, round(width / CROP_ASPECT[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
