"""Frames of a video at given times: seeking where a keyframe lies between, holding one frame at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from av import VideoFrame
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from torch import Tensor

from ibllm_core.encoders.preprocess.containers import opened
from ibllm_core.encoders.preprocess.pictures import check_size
from ibllm_core.encoders.preprocess.refusal import unusable

MEDIUM = "a video"
MAX_PIXELS = 4096 * 4096  # of a frame; scaling one takes 250 MB
MAX_FRAMES = 1_000_000
MAX_SEEKS = 5


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When frames begin and which are keyframes, in ascending order, in ticks of ``tick`` seconds."""

    times: Sequence[int]
    keyframes: Sequence[int]
    end: int
    tick: Fraction


def timeline(content: bytes) -> Timeline:
    """Read when each frame begins, without decoding any.

    Raises ``InvalidDataError`` for what is no video, has no frames or damaged packets, and for declared frames over
    ``MAX_PIXELS`` or a hundred times as long as wide.
    """
    times: list[int] = []
    keyframes: list[int] = []
    duration = 0
    with opened(content, MEDIUM) as container:
        stream = _stream(container)
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise unusable(MEDIUM, "is truncated or damaged")
            if packet.pts is None or packet.is_discard:
                continue
            times.append(packet.pts)
            duration = packet.duration or duration
            if packet.is_keyframe:
                keyframes.append(packet.pts)
            if len(times) > MAX_FRAMES:
                raise unusable(MEDIUM, f"has more than {MAX_FRAMES:,} frames")
        tick = stream.time_base
    if not times or tick is None:
        raise unusable(MEDIUM, "has no frames")
    times.sort()
    return Timeline(times=times, keyframes=sorted(keyframes), end=times[-1] + duration, tick=tick)


def frames_at(content: bytes, line: Timeline, wanted: Sequence[int]) -> Iterator[Tensor]:
    """Yield the frame that begins at each of the ascending times ``wanted``, uint8 RGB ``[H, W, 3]``, upright.

    A packet that shows nothing by itself stands for the next frame, at the end for the last one. Raises
    ``InvalidDataError`` where the stream cannot be decoded.
    """
    with opened(content, MEDIUM) as container:
        stream = _stream(container)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # a stream may change its size on the way
        stream.thread_count = 1  # rows are decoded beside each other, one a core
        decoder, frame = container.decode(stream), None
        for time in wanted:
            shown = line.times[0] if frame is None else _begin(frame)
            keyframes = line.keyframes[: bisect_right(line.keyframes, time)]
            if keyframes and keyframes[-1] > shown:
                decoder, frame = _sought(container, stream, keyframes, time)
            while frame is None or _begin(frame) < time:
                following = next(decoder, None)
                if following is None:
                    break
                frame = following
            yield _rgb(frame)


def _sought(
    container: InputContainer, stream: VideoStream, keyframes: Sequence[int], time: int
) -> tuple[Iterator[VideoFrame], VideoFrame]:
    """Decode from the last keyframe that leads to ``time``; without an index (MPEG-TS) a seek may land too late."""
    for key in reversed(keyframes[-MAX_SEEKS:]):
        container.seek(key, stream=stream)
        decoder = container.decode(stream)
        frame = next(decoder, None)
        if frame is not None and _begin(frame) <= time:
            return decoder, frame
    raise unusable(MEDIUM, f"cannot be decoded at {float(time * (stream.time_base or 0)):.1f} seconds")


def _stream(container: InputContainer) -> VideoStream:
    """The first stream of moving pictures; a sound's cover is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            check_size(stream.codec_context.width, stream.codec_context.height, MEDIUM, MAX_PIXELS)
            return stream
    raise unusable(MEDIUM, "has no video stream")


def _begin(frame: VideoFrame) -> int:
    if frame.pts is None:
        raise unusable(MEDIUM, "has frames without a time")
    return frame.pts


def _rgb(frame: VideoFrame | None) -> Tensor:
    if frame is None:
        raise unusable(MEDIUM, "ends before its declared end")
    if frame.is_corrupt:
        raise unusable(MEDIUM, "is damaged")
    check_size(frame.width, frame.height, MEDIUM, MAX_PIXELS)
    upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    return torch.from_numpy(np.ascontiguousarray(upright))
