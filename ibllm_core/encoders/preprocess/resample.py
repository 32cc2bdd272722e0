"""Sampling rates by a Hann-windowed sinc: the low-pass of torchaudio's default, 6 zero crossings, rolloff 0.99."""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

ZERO_CROSSINGS = 6
ROLLOFF = 0.99


def resample(signal: npt.NDArray[np.float32], *, rate: int, target: int) -> npt.NDArray[np.float32]:
    """Change ``rate`` to ``target``, both in Hz; ``[N]`` becomes ``[ceil(N * target / rate)]``.

    Sample j of the result is ``sum_k signal[k] * h(k / rate - j / target)``, nothing being before and after the signal,
    with ``h(t) = (c / rate) * sinc(c t) * cos(pi c t / 12)**2`` for ``|c t| <= 6``, ``c = 0.99 * min(rate, target)``.
    """
    divisor = gcd(rate, target)
    up, down = target // divisor, rate // divisor
    if up == down:
        return signal
    resampled: npt.NDArray[Any] = resample_poly(signal, up, down, window=_low_pass(up, down))
    return resampled.astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def _low_pass(up: int, down: int) -> npt.NDArray[np.float64]:
    """Samples of h on the grid that both rates share; without the factor ``up``, which ``resample_poly`` applies."""
    step = ROLLOFF / max(up, down)  # of c t, from one point of the grid to the next
    reach = int(ZERO_CROSSINGS / step)
    phase = np.arange(-reach, reach + 1) * step
    window = np.cos(np.pi * phase / (2 * ZERO_CROSSINGS)) ** 2
    return np.asarray(ROLLOFF * min(up, down) / (up * down) * np.sinc(phase) * window)
