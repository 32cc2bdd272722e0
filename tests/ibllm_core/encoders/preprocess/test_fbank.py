"""The filterbank against Kaldi's definition, written out, and against kaldi-native-fbank where that can be asked."""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np
import pytest

from ibllm_core.encoders.preprocess.fbank import log_mel

RATE = 16_000
SECONDS = np.arange(2 * RATE) / RATE
NOISE = np.random.default_rng(1).standard_normal(2 * RATE)

SIGNALS = {
    "a voice": sum(np.sin(2 * np.pi * 140 * k * SECONDS) / k for k in range(1, 30)) * (1 + np.sin(8 * SECONDS)) / 8,
    "a chirp": np.sin(2 * np.pi * (50 + 1900 * SECONDS) * SECONDS) / 2,
    "rain": NOISE / 10,
    "a clock": np.where(np.arange(2 * RATE) % 4000 < 3, 0.8, 0) + NOISE * 1e-4,
    "a hum with an offset": 0.3 + np.sin(2 * np.pi * 50 * SECONDS) / 20 + NOISE * 1e-3,
    "silence": np.zeros(2 * RATE),
}


def by_definition(signal: np.ndarray, num_bins: int) -> np.ndarray:
    """Kaldi's feature-window.cc, feature-fbank.cc and mel-computations.cc in words of float64."""
    window = [0.5 - 0.5 * np.cos(2 * np.pi * i / 399) for i in range(400)]
    dft = np.exp(-2j * np.pi * np.outer(np.arange(256), np.arange(512)) / 512)
    centres = 1127 * np.log(1 + np.arange(256) * 31.25 / 700)
    lowest, highest = (1127 * np.log(1 + hertz / 700) for hertz in (20, 8000))
    step = (highest - lowest) / (num_bins + 1)
    weights = np.zeros((num_bins, 256))
    for number in range(num_bins):
        left = lowest + number * step
        for index, mel in enumerate(centres):
            if left < mel < left + 2 * step:
                weights[number, index] = (mel - left) / step if mel <= left + step else (left + 2 * step - mel) / step
    features = []
    for start in range(0, len(signal) - 399, 160):
        frame = signal[start : start + 400] - signal[start : start + 400].mean()
        emphasised = frame.copy()
        emphasised[1:] -= 0.97 * frame[:-1]
        emphasised[0] -= 0.97 * frame[0]
        power = np.abs(dft @ np.concatenate([emphasised * window, np.zeros(112)])) ** 2
        features.append(np.log(np.maximum(weights @ power, 2.0**-23)))
    return np.array(features)


def by_library(signal: np.ndarray, num_bins: int) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = num_bins
    options.htk_compat = True
    options.use_energy = False
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(RATE, signal)
    bank.input_finished()
    return np.stack([bank.get_frame(number) for number in range(bank.num_frames_ready)])


@pytest.mark.parametrize("name", SIGNALS)
def test_128_bins_follow_the_definition(name: str) -> None:
    signal = SIGNALS[name].astype(np.float32)
    features = log_mel(signal)
    assert features.dtype == np.float32
    assert features.shape == (198, 128)
    assert np.abs(features - by_definition(signal.astype(np.float64), 128)).max() < 1e-5


@pytest.mark.parametrize("num_bins", [80, 120])
@pytest.mark.parametrize("name", SIGNALS)
def test_fewer_bins_are_those_of_kaldi(name: str, num_bins: int) -> None:
    signal = SIGNALS[name].astype(np.float32)
    features = log_mel(signal, num_bins=num_bins)
    expected = by_library(signal, num_bins)
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 0.02  # the library's float32 shows in bins that are all but silent
    assert np.abs(features - expected).mean() < 1e-4


def test_kaldi_itself_refuses_128_bins() -> None:
    """Which is why the library is not used: should this fail, it can be."""
    with pytest.raises(ValueError, match="num_mel_bins too large"):
        by_library(SIGNALS["rain"], 128)


def test_an_empty_triangle_is_the_floor() -> None:
    features = log_mel(SIGNALS["rain"].astype(np.float32))
    is_floor = (features == np.float32(np.log(2.0**-23))).all(axis=0)
    assert np.flatnonzero(is_floor).tolist() == [3]
