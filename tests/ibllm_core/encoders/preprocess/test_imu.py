"""IMU recordings: the middle five seconds as 2,000 samples of six axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ibllm_core.encoders.preprocess import imu
from tests.ibllm_core.encoders.preprocess.media import npy, npy_declaring, refusal

READINGS = np.random.default_rng(4).standard_normal((2000, 6))


def csv(readings: np.ndarray, names: str = "") -> bytes:
    return (names + "\n".join(",".join(map(repr, row)) for row in readings.tolist())).encode()


def test_the_numbers_are_those_of_the_fact_sheet() -> None:
    assert (imu.SECONDS, imu.NUM_SAMPLES, imu.NUM_AXES, imu.RATE_HZ) == (5, 2000, 6, 400)


@pytest.mark.parametrize(
    "content",
    [
        npy(READINGS),
        npy(READINGS.T),
        npy(np.asfortranarray(READINGS)),
        csv(READINGS),
        csv(READINGS.T),
        csv(READINGS, "a,b,c,d,e,f\n"),
    ],
)
def test_five_seconds_pass_unchanged_however_they_are_stored(content: bytes) -> None:
    window = imu.load(content)
    assert window.dtype == torch.float32
    assert torch.equal(window, torch.from_numpy(READINGS.T.astype(np.float32)))


def test_the_middle_of_a_longer_recording_is_taken() -> None:
    longer = np.concatenate([np.zeros((300, 6)), READINGS, np.zeros((300, 6))])
    assert torch.equal(imu.load(npy(longer)), imu.load(npy(READINGS)))


@pytest.mark.parametrize("rate_hz", [100, 200, 399.5, 1000])
def test_another_rate_is_interpolated(rate_hz: float) -> None:
    seconds = np.arange(round(5 * rate_hz)) / rate_hz
    ramps = np.stack([seconds * axis for axis in range(1, 7)], axis=1)
    window = imu.load(npy(ramps), rate_hz=rate_hz)
    expected = torch.minimum(torch.arange(2000) / 400, torch.tensor(seconds[-1])) * torch.arange(1, 7)[:, None]
    assert (window - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (npy(READINGS[:1999]), "less than 5 seconds"),
        (npy(READINGS[:, :5]), "shape"),
        (npy(READINGS[None]), "shape"),
        (npy(np.full((2000, 6), np.nan)), "NaN"),
        (csv(np.full((2000, 6), np.inf)), "NaN"),
        (npy(np.full((2000, 6), 1e300)), "too large"),
        (npy(np.array([["a"] * 6])), "not of numbers"),
        (npy_declaring("(1000000000, 6)"), "declares"),
        (b"", "no rows"),
        (b"a,b\n1,2\n3\n", "decoded"),
        (b"0" * (1 + (1 << 25)), "allowed"),
    ],
)
def test_what_is_no_recording_is_refused(content: bytes, problem: str) -> None:
    assert problem in refusal(imu.load, content)
