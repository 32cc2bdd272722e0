"""Depth maps as disparity; the choices of this project written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ibllm_core.encoders.preprocess import depth
from tests.ibllm_core.encoders.preprocess.media import noise, npy, npy_declaring, picture, refusal


def flat(millimetres: int) -> bytes:
    return picture(np.full((240, 320), millimetres, dtype=np.uint16))


def test_the_numbers_are_those_of_the_fact_sheet() -> None:
    assert (depth.KINECT_BASELINE_M, depth.NEAREST_M, depth.FARTHEST_M, depth.SUN_FARTHEST_M) == (0.075, 0.01, 50, 8)
    disparity = depth.load(flat(2000))
    assert disparity.shape == (1, 224, 224)
    assert disparity.dtype == torch.float32


@pytest.mark.parametrize("metres", [0.6, 1, 2.5, 10, 49])
def test_millimetres_and_metres_become_the_same_disparity(metres: float) -> None:
    expected = 0.075 * 518.86 / metres / 75
    for content in (flat(round(metres * 1000)), npy(np.full((240, 320), metres, dtype=np.float32))):
        assert (depth.load(content) - expected).abs().max() < 1e-6


def test_the_sensor_is_the_callers() -> None:
    assert depth.load(flat(2000), baseline_m=0.095, focal_px=600).mean().item() == pytest.approx(0.095 * 600 / 2 / 75)


def test_depth_is_clamped_and_disparity_too() -> None:
    assert depth.load(flat(1)).unique().tolist() == [1]
    far = depth.load(npy(np.full((240, 320), 1e6)))
    assert far.mean().item() == pytest.approx(0.075 * 518.86 / 50 / 75)


def test_no_reading_is_infinitely_far() -> None:
    halves = np.zeros((224, 224), dtype=np.uint16)
    halves[:, :112] = 1000
    disparity = depth.load(picture(halves))
    assert (disparity[..., 112:] == 0).all()
    assert (disparity[..., :112] > 0.5).all()


def test_pngs_of_sun_rgbd_are_rotated_back_and_capped() -> None:
    for millimetres, metres in ((2500, 2.5), (9000, 8.0), (8191, 8.0)):
        rotated = (millimetres << 3 | millimetres >> 13) & 0xFFFF
        disparity = depth.load(flat(rotated), is_sun_rgbd=True)
        assert disparity.mean().item() == pytest.approx(0.075 * 518.86 / metres / 75, rel=1e-5)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (flat(0), "no reading"),
        (picture(noise(20, 20)), "16-bit"),
        (npy(np.full((20, 20), -1.0)), "negative"),
        (npy(np.full((20, 20), np.nan)), "NaN"),
        (npy(np.ones((20, 20, 3))), "shape"),
        (npy(np.ones((1, 200))), "times the other"),
        (npy(np.ones((0, 200))), "times the other"),
        (npy_declaring("(100000, 100000)"), "declares"),
        (b"", "decoded"),
    ],
)
def test_what_is_no_depth_map_is_refused(content: bytes, problem: str) -> None:
    assert problem in refusal(depth.load, content)
