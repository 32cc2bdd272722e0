"""Depth maps for ImageBind's depth tower, as disparity. Experimental: nobody published a loader for this input.

Known are the unit, ``baseline * focal / depth``, the baselines of the sensors in SUN RGB-D and the clamp of the depth.
Chosen here are the default focal length, that a pixel without a reading is as far away as can be, and the scale: a
disparity of 75 pixels, half a metre before the default sensor, becomes 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ibllm_core.encoders.preprocess.arrays import MAGIC, MAX_VALUES, read_npy
from ibllm_core.encoders.preprocess.pictures import centre_square, check_size, decoded
from ibllm_core.encoders.preprocess.refusal import unusable

KINECT_BASELINE_M = 0.075  # both Kinects; RealSense and Xtion 0.095
KINECT_FOCAL_PX = 518.86  # the first Kinect at 640 x 480
NEAREST_M, FARTHEST_M = 0.01, 50.0
SUN_FARTHEST_M = 8.0
MAX_DISPARITY_PX = 75.0

MEDIUM = "a depth map"


def load(
    content: bytes,
    *,
    baseline_m: float = KINECT_BASELINE_M,
    focal_px: float = KINECT_FOCAL_PX,
    is_sun_rgbd: bool = False,
) -> Tensor:
    """Decode a depth map; float32 ``[1, 224, 224]`` from 0, infinitely far, to 1.

    A 16-bit PNG of millimetres, an ``.npy`` of metres ``[H, W]``, or, with ``is_sun_rgbd``, one of SUN RGB-D's PNGs,
    whose bits are rotated by three. Depth 0 means no reading. The short side becomes 224, bilinear, and the centre is
    cut. Raises ``InvalidDataError`` where the map cannot be decoded, is negative or NaN, or has no reading at all.
    """
    depth = _from_npy(content) if content.startswith(MAGIC) else _from_png(content, is_sun_rgbd)
    has_reading = depth > 0
    if not has_reading.any():
        raise unusable(MEDIUM, "has no reading: all its depths are 0")
    disparity = np.where(has_reading, baseline_m * focal_px / np.clip(depth, NEAREST_M, FARTHEST_M), 0.0)
    scaled = np.minimum(disparity / MAX_DISPARITY_PX, 1.0).astype(np.float32)
    square = centre_square(Image.fromarray(scaled), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).unsqueeze(0)


def _from_npy(content: bytes) -> npt.NDArray[np.float64]:
    depth = read_npy(content, MEDIUM)
    if depth.ndim != 2:
        raise unusable(MEDIUM, f"has shape {depth.shape}, not height and width")
    check_size(depth.shape[1], depth.shape[0], MEDIUM)
    if depth.min() < 0:
        raise unusable(MEDIUM, "has negative depths")
    return depth


def _from_png(content: bytes, is_sun_rgbd: bool) -> npt.NDArray[np.float64]:
    image = decoded(content, medium=MEDIUM, max_pixels=MAX_VALUES)
    if not image.mode.startswith("I;16"):
        raise unusable(MEDIUM, f"is a picture of mode {image.mode}, not of 16-bit millimetres in one channel")
    millimetres = np.asarray(image).astype(np.uint16)
    if is_sun_rgbd:
        millimetres = np.bitwise_or(millimetres >> 3, millimetres << 13, dtype=np.uint16)
    metres = millimetres / 1000
    return np.minimum(metres, SUN_FARTHEST_M) if is_sun_rgbd else metres
