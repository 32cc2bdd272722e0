"""Readings of an inertial sensor for ImageBind's IMU tower. Experimental: nobody published a loader for this input.

Known are five seconds as 2,000 samples of six axes. Chosen here are the middle of a longer recording, linear
interpolation, and the numbers as they are, acceleration first, then rotation, each x, y, z.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ibllm_core.encoders.preprocess.arrays import MAGIC, read_npy, read_rows
from ibllm_core.encoders.preprocess.refusal import unusable

NUM_AXES = 6
NUM_SAMPLES = 2_000
SECONDS = 5
RATE_HZ = NUM_SAMPLES / SECONDS

MEDIUM = "an IMU recording"


def load(content: bytes, *, rate_hz: float = RATE_HZ) -> Tensor:
    """Decode a recording of ``rate_hz``; float32 ``[6, 2000]``: the middle five seconds.

    An ``.npy`` or a CSV of six columns or six rows, with or without a line of names. Six by six is read as columns. At
    the default rate exactly five seconds pass unchanged. Raises ``InvalidDataError`` for another shape, for numbers
    that are not finite, and for less than five seconds.
    """
    readings = read_npy(content, MEDIUM) if content.startswith(MAGIC) else read_rows(content, MEDIUM)
    if readings.ndim != 2 or NUM_AXES not in readings.shape:
        raise unusable(MEDIUM, f"has shape {readings.shape}, not six columns or six rows")
    axes = readings.T if readings.shape[1] == NUM_AXES else readings
    needed = round(SECONDS * rate_hz)
    if axes.shape[1] < needed:
        raise unusable(MEDIUM, f"has {axes.shape[1]:,} samples of {rate_hz:g} Hz, less than {SECONDS} seconds")
    start = (axes.shape[1] - needed) // 2
    instants = start + np.arange(NUM_SAMPLES) * (rate_hz / RATE_HZ)
    window = np.stack([np.interp(instants, np.arange(axes.shape[1]), axis) for axis in axes])
    with np.errstate(over="ignore"):
        resampled = torch.from_numpy(window.astype(np.float32))
    if not resampled.isfinite().all():
        raise unusable(MEDIUM, "holds numbers too large for 32 bits")
    return resampled
