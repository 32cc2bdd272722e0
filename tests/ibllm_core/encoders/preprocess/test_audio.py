"""Sounds as ImageBind hears them, and which are refused."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ibllm_core.encoders.preprocess import audio
from ibllm_core.encoders.preprocess.sounds import first_channel
from tests.ibllm_core.encoders.preprocess.media import aac, counting, noise, picture, refusal, sound, video

RATE = 16_000
HISS = np.random.default_rng(3).standard_normal(10 * RATE).astype(np.float32) / 10
PADDING = 4.268 / 9.138


def test_the_numbers_are_those_of_the_fact_sheet() -> None:
    assert (audio.NUM_CLIPS, audio.CLIP, audio.RATE, audio.NUM_FRAMES) == (3, 32_000, 16_000, 204)
    assert (audio.MEAN, audio.STD) == (-4.268, 9.138)
    spectrograms = audio.load(sound(HISS))
    assert spectrograms.shape == (3, 1, 128, 204)
    assert spectrograms.dtype == torch.float32


def test_two_seconds_are_198_frames_and_six_of_padding() -> None:
    spectrograms = audio.load(sound(HISS))
    assert (spectrograms[..., 198:] - PADDING).abs().max() < 1e-6
    assert (spectrograms[..., 197] - PADDING).abs().max() > 0.1


@pytest.mark.parametrize("seconds", [10, 7, 3, 2.5])
def test_clips_start_at_thirds_of_what_is_left_of_the_duration(seconds: float) -> None:
    signal = HISS[: int(seconds * RATE)]
    whole = audio.load(sound(signal))
    for clip in range(3):
        start = int(clip * (seconds - 2) / 3 * RATE)
        alone = audio.load(sound(signal[start : start + 2 * RATE]))
        assert torch.equal(whole[clip], alone[0])  # overlapping clips do not alter each other


@pytest.mark.parametrize("seconds", [2, 1, 0.1])
def test_a_short_sound_is_all_three_clips(seconds: float) -> None:
    first, second, third = audio.load(sound(HISS[: int(seconds * RATE)]))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    num_frames = 1 + (int(seconds * RATE) - 400) // 160
    assert (first[..., num_frames:] - PADDING).abs().max() < 1e-6


def test_the_mean_of_a_clip_is_removed() -> None:
    plain, shifted = (audio.load(sound(HISS[: 3 * RATE] + offset)) for offset in (0, 0.25))
    assert (plain - shifted).abs().max() < 1e-3


def test_only_the_first_channel_is_heard() -> None:
    left, right = HISS[: 2 * RATE], HISS[2 * RATE : 4 * RATE]
    assert torch.equal(audio.load(sound(np.stack([left, right], axis=1))), audio.load(sound(left)))


def test_another_rate_is_resampled() -> None:
    seconds = np.arange(3 * 44_100) / 44_100
    tone = np.sin(2 * np.pi * 1000 * seconds).astype(np.float32)
    high, low = (
        audio.load(sound(tone, 44_100)),
        audio.load(sound(tone[: 3 * RATE] * 0 + np.sin(np.arange(3 * RATE) / RATE * 2000 * np.pi).astype(np.float32))),
    )
    loud = low > low.amax() - 1
    assert (high - low)[loud].abs().max() < 0.01


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("FLAC", None), ("AIFF", None)])
def test_lossless_formats_are_heard_alike(kind: str, subtype: str | None) -> None:
    samples, rate = first_channel(sound(HISS, kind=kind, subtype=subtype))
    assert rate == RATE
    assert np.abs(samples - HISS).max() < 1e-4


@pytest.mark.parametrize(
    "content", [sound(HISS, kind="OGG", subtype=None), sound(HISS, kind="MP3", subtype=None), aac(HISS)]
)
def test_lossy_formats_are_decoded(content: bytes) -> None:
    samples, rate = first_channel(content)
    assert abs(len(samples) - len(HISS)) < 0.1 * rate
    assert 0.05 < samples.std() < 0.15
    assert audio.load(content).shape == (3, 1, 128, 204)


def test_the_sound_of_a_container_that_only_ffmpeg_knows_is_in_tune() -> None:
    seconds = np.arange(48_000) / 48_000
    samples, rate = first_channel(aac(np.sin(2 * np.pi * 440 * seconds) / 2))
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(spectrum.argmax() * rate / len(samples) - 440) < 2


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_a_sound_without_samples_is_refused(kind: str) -> None:
    refusal(audio.load, sound(np.empty(0, dtype=np.float32), kind=kind, subtype=None))


def test_a_click_shorter_than_a_spectrum_is_refused() -> None:
    assert "25 ms" in refusal(audio.load, sound(HISS[:399]))
    assert audio.load(sound(HISS[:400])).shape == (3, 1, 128, 204)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    broken = HISS.copy()
    broken[-1] = value
    assert "NaN" in refusal(audio.load, sound(broken))


def test_finite_numbers_beyond_a_spectrum_are_refused() -> None:
    assert "too large" in refusal(audio.load, sound(np.sign(HISS) * np.float32(3.4e38)))


def test_a_video_without_sound_is_refused() -> None:
    assert "no audio stream" in refusal(audio.load, video(counting(5)))


@pytest.mark.parametrize(
    "content", [b"", b"a text", picture(noise(8, 8)), sound(HISS)[:30], sound(HISS, kind="FLAC", subtype=None)[:9000]]
)
def test_what_is_no_sound_is_refused(content: bytes) -> None:
    refusal(audio.load, content)


def test_a_script_cannot_name_files_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.wav").write_bytes(sound(HISS))
    monkeypatch.chdir(tmp_path)
    refusal(audio.load, b"ffconcat version 1.0\nfile secret.wav\n")


def test_an_hour_of_silence_in_a_small_file_is_refused_unheard() -> None:
    content = sound(np.zeros(3600 * 1000, dtype=np.float32), rate=1000, kind="FLAC", subtype=None)
    assert len(content) < 50_000
    begin = time.perf_counter()
    assert "longer than 600 seconds" in refusal(audio.load, content)
    assert time.perf_counter() - begin < 0.1


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_an_absurd_rate_is_refused(rate: int) -> None:
    content = bytearray(sound(HISS))
    content[24:28] = struct.pack("<I", rate)
    assert "sampling rate" in refusal(audio.load, bytes(content))
