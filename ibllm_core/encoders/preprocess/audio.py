"""Sounds for ImageBind's audio tower: three clips of two seconds as log-mel spectrograms."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ibllm_core.encoders.preprocess.fbank import NUM_BINS, RATE, WINDOW, log_mel
from ibllm_core.encoders.preprocess.refusal import unusable
from ibllm_core.encoders.preprocess.resample import resample
from ibllm_core.encoders.preprocess.sounds import MEDIUM, Samples, first_channel

NUM_CLIPS = 3
CLIP = 2 * RATE
NUM_FRAMES = 204  # two seconds give 198
MEAN = -4.268
STD = 9.138


def load(content: bytes) -> Tensor:
    """Decode a sound; float32 ``[3, 1, 128, 204]``: clips, one channel, mel bins, frames.

    Clip i starts at ``i * (duration - 2 s) / 3``; of a sound shorter than two seconds all three clips are the whole,
    and their missing frames are 0 before the normalisation. Raises ``InvalidDataError`` for what
    ``sounds.first_channel`` refuses, and for less than 25 ms.
    """
    signal, rate = first_channel(content)
    signal = resample(signal, rate=rate, target=RATE)
    if len(signal) < WINDOW:
        raise unusable(MEDIUM, f"lasts less than the {1000 * WINDOW // RATE} ms of one spectrum")
    with np.errstate(over="ignore", invalid="ignore"):  # such numbers are refused below
        spectrograms = np.stack([_spectrogram(clip) for clip in clips(signal)])
    if not np.isfinite(spectrograms).all():
        raise unusable(MEDIUM, "holds samples too large for a spectrum")
    return torch.from_numpy(spectrograms).unsqueeze(1)


def clips(signal: Samples) -> list[Samples]:
    """Three overlapping views of at most two seconds; the last one never reaches the end of a longer sound."""
    spare = max(len(signal) - CLIP, 0)
    return [signal[start : start + CLIP] for start in (i * spare // NUM_CLIPS for i in range(NUM_CLIPS))]


def _spectrogram(clip: Samples) -> Samples:
    features = log_mel(clip - clip.mean())  # a copy: clips overlap
    padded = np.zeros((NUM_BINS, NUM_FRAMES), dtype=np.float32)
    padded[:, : len(features)] = features.T[:, :NUM_FRAMES]
    return (padded - np.float32(MEAN)) / np.float32(STD)
