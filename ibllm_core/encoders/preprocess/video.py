"""Videos for ImageBind's vision tower: five clips of two seconds, two frames each, three square crops of both."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ibllm_core.encoders.preprocess.frames import Timeline, frames_at, timeline
from ibllm_core.encoders.preprocess.pictures import SIDE

NUM_CLIPS = 5
CLIP_SECONDS = 2
NUM_CROPS = 3


def load(content: bytes) -> Tensor:
    """Decode a video; uint8 ``[15, 3, 2, 224, 224]``: views, channels, frames, height, width.

    Views are ordered clip by clip, the crops of a clip from left (top) over centre to right (bottom). Clip i starts at
    ``i * (duration - 2 s) / 5`` and is seen by its first and last frame. The short side becomes 224, bilinear without
    antialiasing as pytorchvideo scales. Raises ``InvalidDataError`` for what ``frames.timeline`` and
    ``frames.frames_at`` refuse.
    """
    line = timeline(content)
    pairs = clip_ends(line)
    wanted = sorted({time for pair in pairs for time in pair})
    crops = {time: _crops(frame) for time, frame in zip(wanted, frames_at(content, line, wanted), strict=True)}
    return torch.stack(
        [torch.stack([crops[time][crop] for time in pair], dim=1) for pair in pairs for crop in range(NUM_CROPS)]
    )


def clip_ends(line: Timeline) -> list[tuple[int, int]]:
    """The times of the first and the last frame of each clip.

    A clip in which no frame begins is seen by the one on display at its start, twice.
    """
    length = CLIP_SECONDS / line.tick
    spare = max(line.end - line.times[0] - length, Fraction(0))
    ends = []
    for clip in range(NUM_CLIPS):
        start = line.times[0] + clip * spare / NUM_CLIPS
        first = bisect_left(line.times, start)
        last = bisect_left(line.times, start + length) - 1
        ends.append((line.times[min(first, last)], line.times[last]))
    return ends


def _crops(frame: Tensor) -> list[Tensor]:
    """Three squares ``[3, 224, 224]`` along the long side of ``[H, W, 3]``."""
    height, width = frame.shape[:2]
    short = min(height, width)
    size = (SIDE * height // short, SIDE * width // short)
    scaled = F.interpolate(frame.permute(2, 0, 1)[None].float(), size=size, mode="bilinear", align_corners=False)
    scaled = scaled[0].round_().to(torch.uint8)
    spare = max(size) - SIDE
    axis = 1 if height > width else 2
    return [scaled.narrow(axis, offset, SIDE) for offset in (0, math.ceil(spare / 2), spare)]
