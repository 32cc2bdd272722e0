"""Thermal pictures for ImageBind's thermal tower. Experimental: nobody published a loader for this input.

No mean and deviation are applied: on LLVIP a user measured 62.4 % without, 55.2 % with (ImageBind, pull request 73);
the paper has 63.4 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ibllm_core.encoders.preprocess.arrays import MAX_VALUES
from ibllm_core.encoders.preprocess.pictures import centre_square, decoded
from ibllm_core.encoders.preprocess.refusal import refusing, unusable

MEDIUM = "a thermal picture"


def load(content: bytes) -> Tensor:
    """Decode a thermal picture; float32 ``[1, 224, 224]``, 0 to 1 over the full range of its 8 or 16 bits.

    Three channels are accepted where they are equal, as in LLVIP's JPEGs. The short side becomes 224, bicubic, and the
    centre is cut. Raises ``InvalidDataError`` where it cannot be decoded or shows colours.
    """
    scaled = Image.fromarray(_readings(decoded(content, medium=MEDIUM, max_pixels=MAX_VALUES)))
    square = centre_square(scaled, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).clamp_(0, 1).unsqueeze(0)  # bicubic overshoots at edges


def _readings(image: Image.Image) -> npt.NDArray[np.float32]:
    if image.mode.startswith("I;16"):
        return (np.asarray(image) / np.float32(65535)).astype(np.float32)
    if image.mode not in ("L", "RGB"):
        raise unusable(MEDIUM, f"is a picture of mode {image.mode}, not of one channel of 8 or 16 bits")
    with refusing(MEDIUM):
        values = np.asarray(image)
    if image.mode == "RGB":
        if not (values == values[..., :1]).all():
            raise unusable(MEDIUM, "is coloured: the sensor's one channel is needed")
        values = values[..., 0]
    return (values / np.float32(255)).astype(np.float32)
