"""The resampler against its own definition, evaluated term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ibllm_core.encoders.preprocess.resample import resample

NOISE = np.random.default_rng(2).standard_normal(700).astype(np.float32)


def by_definition(signal: np.ndarray, rate: int, target: int) -> np.ndarray:
    cutoff = 0.99 * min(rate, target)
    result = np.zeros(math.ceil(len(signal) * target / rate))
    for j in range(len(result)):
        for k in range(len(signal)):
            phase = cutoff * (k / rate - j / target)
            if abs(phase) < 6:
                hann = math.cos(math.pi * phase / 12) ** 2
                result[j] += signal[k] * cutoff / rate * float(np.sinc(phase)) * hann
    return result


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 12_347])
def test_every_sample_is_the_windowed_sinc_sum(rate: int) -> None:
    resampled = resample(NOISE, rate=rate, target=16_000)
    assert resampled.dtype == np.float32
    assert np.abs(resampled - by_definition(NOISE, rate, 16_000)).max() < 5e-6


def test_the_same_rate_changes_nothing() -> None:
    assert resample(NOISE, rate=16_000, target=16_000) is NOISE


def test_a_tone_keeps_its_pitch_and_what_cannot_be_heard_any_more_is_gone() -> None:
    seconds = np.arange(44_100) / 44_100
    tones = {hertz: np.sin(2 * np.pi * hertz * seconds).astype(np.float32) for hertz in (440, 12_000)}
    kept, gone = (resample(tone, rate=44_100, target=16_000)[100:-100] for tone in tones.values())
    assert np.abs(kept - np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)[100:-100]).max() < 2e-3
    assert np.abs(gone).max() < 1e-2
