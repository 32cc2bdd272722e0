"""Kaldi's log-mel filterbank, with 128 bins at 16 kHz.

Kaldi itself and kaldi-native-fbank refuse 128 bins here, because the lowest triangles are narrower than the 31.25 Hz
between two bins of the spectrum and some stay empty. torchaudio, with which ImageBind was trained, lets an empty
triangle be the logarithm's floor; so does this. Where kaldi-native-fbank can be asked, the tests compare with it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

RATE = 16_000
NUM_BINS = 128
WINDOW = 400  # 25 ms
SHIFT = 160  # 10 ms
FFT = 512  # the next power of two
PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0
FLOOR = float(np.finfo(np.float32).eps)


def log_mel(signal: npt.NDArray[np.float32], *, num_bins: int = NUM_BINS) -> npt.NDArray[np.float32]:
    """Log power in mel bins, ``[N] -> [1 + (N - 400) // 160, num_bins]``, of at least 400 samples at 16 kHz.

    Frames of 25 ms every 10 ms that lie wholly within the signal; per frame the mean is removed, pre-emphasis 0.97, a
    Hanning window, the power spectrum of 512 points, triangles equally wide in mel from 20 Hz to 8 kHz. No dither, no
    energy. The order of the bins is Kaldi's with ``htk_compat``, which moves the energy alone.
    """
    frames = np.lib.stride_tricks.sliding_window_view(signal.astype(np.float64), WINDOW)[::SHIFT]
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)  # the first sample precedes itself
    spectrum = np.fft.rfft((frames - PRE_EMPHASIS * previous) * np.hanning(WINDOW), n=FFT)
    power = spectrum.real**2 + spectrum.imag**2
    mel: npt.NDArray[np.float64] = (_triangles(num_bins) @ power.T).T
    return np.log(np.maximum(mel, FLOOR)).astype(np.float32)


@lru_cache(maxsize=2)
def _triangles(num_bins: int) -> Any:
    """Weights ``[num_bins, 257]``: each triangle rises from its left neighbour's peak and falls to its right one's.

    Sparse, because a dense product is given to threads that wait for each other on busy cores: 8 ms instead of 0.1.
    """
    edges = np.linspace(_mel(LOWEST_HZ), _mel(RATE / 2), num_bins + 2)[:, None]
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    bins = _mel(np.arange(FFT // 2 + 1) * (RATE / FFT))
    return csr_array(np.maximum(np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)), 0))


def _mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz, dtype=np.float64) / 700.0))
