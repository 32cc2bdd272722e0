"""Encoded sounds to the samples of their first channel, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO

import av
import numpy as np
import numpy.typing as npt
import soundfile

from ibllm_core.encoders.preprocess.containers import opened
from ibllm_core.encoders.preprocess.refusal import refusing, unusable

MEDIUM = "a sound"
MAX_SECONDS = 600  # 230 MB at 96 kHz
RATES_HZ = range(1_000, 192_001)  # beyond these a resampler's filter grows to millions of taps
BLOCK = 1 << 20  # values decoded at once, all channels together

Samples = npt.NDArray[np.float32]


def first_channel(content: bytes) -> tuple[Samples, int]:
    """The first channel, full scale being 1, ``[N]`` with ``N >= 1``; and its sampling rate in Hz.

    WAV, FLAC, Ogg and MP3 are decoded by libsndfile, what it does not know (m4a, webm, ...) by FFmpeg. Raises
    ``InvalidDataError`` for anything else, for sounds without samples, with numbers that are not finite, or longer than
    ten minutes.
    """
    samples, rate = _decode(content)
    if not samples.size:
        raise unusable(MEDIUM, "holds no samples")
    if not np.isfinite(samples).all():
        raise unusable(MEDIUM, "holds samples that are NaN or infinite")
    return samples, rate


def _decode(content: bytes) -> tuple[Samples, int]:
    with refusing(MEDIUM):
        try:
            file = soundfile.SoundFile(BytesIO(content))
        except soundfile.LibsndfileError:
            return _by_ffmpeg(content)
        with file:
            _check_rate(file.samplerate)
            _check_length(file.frames, file.samplerate)
            return _bounded(_blocks(file), file.samplerate), file.samplerate


def _blocks(file: soundfile.SoundFile) -> Iterator[Samples]:
    frames = max(1, BLOCK // file.channels)
    while len(block := file.read(frames, dtype="float32", always_2d=True)):
        yield block[:, 0].copy()


def _by_ffmpeg(content: bytes) -> tuple[Samples, int]:
    with opened(content, MEDIUM) as container:
        if not container.streams.audio:
            raise unusable(MEDIUM, "has no audio stream")
        stream = container.streams.audio[0]
        _check_rate(stream.rate)
        planar = av.AudioResampler(format="fltp", rate=stream.rate)
        blocks = (part.to_ndarray()[0] for frame in container.decode(stream) for part in planar.resample(frame))
        return _bounded(blocks, stream.rate), stream.rate


def _bounded(blocks: Iterable[Samples], rate: int) -> Samples:
    kept: list[Samples] = []
    count = 0
    for block in blocks:
        count += len(block)
        _check_length(count, rate)  # what a header declares need not be so
        kept.append(block)
    return np.concatenate(kept) if kept else np.empty(0, dtype=np.float32)


def _check_rate(rate: int) -> None:
    if rate not in RATES_HZ:
        raise unusable(MEDIUM, f"has a sampling rate of {rate:,} Hz, outside {RATES_HZ[0]:,} to {RATES_HZ[-1]:,}")


def _check_length(num_samples: int, rate: int) -> None:
    if num_samples > MAX_SECONDS * rate:
        raise unusable(MEDIUM, f"is longer than {MAX_SECONDS} seconds")
