"""Thermal pictures: one channel, its whole range to 0 and 1, nothing normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ibllm_core.encoders.preprocess import thermal
from tests.ibllm_core.encoders.preprocess.media import noise, picture, refusal


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_the_range_becomes_0_to_1(dtype: type, largest: int) -> None:
    ramp = np.linspace(0, largest, 224 * 224).reshape(224, 224).astype(dtype)
    pixels = thermal.load(picture(ramp))
    assert pixels.shape == (1, 224, 224)
    assert pixels.dtype == torch.float32
    assert np.abs(pixels[0].numpy() - ramp / largest).max() < 1e-6


def test_edges_do_not_overshoot() -> None:
    edges = np.zeros((100, 100), dtype=np.uint8)
    edges[::7] = 255
    pixels = thermal.load(picture(edges))
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_three_equal_channels_are_one() -> None:
    grey = noise(240, 320, 1)
    assert torch.equal(thermal.load(picture(np.stack([grey] * 3, axis=-1))), thermal.load(picture(grey)))
    thermal.load(picture(Image.fromarray(grey).convert("RGB"), "JPEG"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [(picture(noise(20, 20)), "coloured"), (picture(noise(20, 20, 4)), "RGBA"), (b"text", "decoded")],
)
def test_what_is_no_thermal_picture_is_refused(content: bytes, problem: str) -> None:
    assert problem in refusal(thermal.load, content)
