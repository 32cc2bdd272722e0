"""Videos as ImageBind sees them: which frames, which crops, and which files are refused."""

from __future__ import annotations

import re
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.encoders.preprocess import video as videos
from ibllm_core.encoders.preprocess.frames import Timeline, timeline
from tests.ibllm_core.encoders.preprocess.media import counting, noise, picture, refusal, sound, video

ENCODERS = {
    "mp4": ("mp4", "libx264", {"qp": "4", "g": "20"}),
    "one keyframe": ("mp4", "libx264", {"qp": "4", "g": "1000", "sc_threshold": "0"}),
    "keyframes only": ("mp4", "libx264", {"qp": "4", "g": "1"}),
    "open groups": ("matroska", "libx264", {"qp": "4", "g": "20", "x264-params": "open-gop=1"}),
    "hidden frames": ("webm", "libvpx", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "avi": ("avi", "mpeg4", {"qscale": "2", "bf": "2"}),
    "no index": ("mpegts", "libx264", {"qp": "4", "g": "20"}),
}


def test_the_numbers_are_those_of_the_fact_sheet() -> None:
    assert (videos.NUM_CLIPS, videos.CLIP_SECONDS, videos.NUM_CROPS) == (5, 2, 3)
    views = videos.load(video(counting(10)))
    assert views.shape == (15, 3, 2, 224, 224)
    assert views.dtype == torch.uint8


@pytest.mark.parametrize("name", ENCODERS)
def test_a_clip_is_seen_by_its_first_and_last_frame(name: str) -> None:
    kind, codec, options = ENCODERS[name]
    views = videos.load(video(counting(200), kind, codec, **options))
    # 8 seconds of 25 frames: clips start every 6/5 s = 30 frames and hold 50
    seen = views[::3, 0, :, 112, 112].tolist()
    expected = [[start, start + 49] for start in range(0, 150, 30)]
    assert np.abs(np.array(seen) - expected).max() <= 3


def test_a_short_video_is_all_five_clips() -> None:
    seen = videos.load(video(counting(30), qp="4"))[::3, 0, :, 112, 112].int()
    assert (seen - torch.tensor([0, 29])).abs().max() <= 3


def test_a_single_frame_is_seen_twice() -> None:
    seen = videos.load(video(counting(31)[30:], qp="4"))[:, 0, :, 112, 112].int()
    assert (seen - 30).abs().max() <= 3


@given(st.lists(st.integers(0, 100_000), min_size=1, unique=True), st.integers(0, 5_000))
def test_clips_keep_their_rule_at_any_frame_rate(times: list[int], last: int) -> None:
    times.sort()
    line = Timeline(times=times, keyframes=times[:1], end=times[-1] + last, tick=Fraction(1, 1000))
    spare = max(line.end - times[0] - 2000, 0)
    for clip, (first, final) in enumerate(videos.clip_ends(line)):
        start = times[0] + Fraction(clip * spare, 5)
        within = [time for time in times if start <= time < start + 2000]
        shown = [time for time in times if time < start + 2000][-1]
        assert (first, final) == ((within[0], within[-1]) if within else (shown, shown))


@pytest.mark.parametrize("is_portrait", [False, True])
def test_crops_go_along_the_long_side(is_portrait: bool) -> None:
    frame = np.zeros((64, 192, 3), dtype=np.uint8)
    for third in range(3):
        frame[:, third * 64 : third * 64 + 64, third] = 255
    frame = np.ascontiguousarray(frame.transpose(1, 0, 2)) if is_portrait else frame
    views = videos.load(video([frame] * 3, "matroska", "ffv1", "bgr0"))
    for view, pixels in enumerate(views.int()):
        assert pixels[view % 3, :, 8:-8, 8:-8].min() == 255
        assert pixels[[channel for channel in range(3) if channel != view % 3], :, 8:-8, 8:-8].max() == 0


@pytest.mark.parametrize(("height", "width"), [(60, 100), (301, 250)])
def test_frames_are_scaled_bilinearly_without_antialiasing(height: int, width: int) -> None:
    frame = noise(height, width)
    views = videos.load(video([frame], "matroska", "ffv1", "bgr0"))
    short = min(height, width)
    size = (224 * height // short, 224 * width // short)
    rows, columns = (
        np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        for new, old in zip(size, (height, width), strict=True)
    )
    top, left = (np.minimum(at.astype(int), limit - 2) for at, limit in ((rows, height), (columns, width)))
    down, across = (rows - top)[:, None, None], (columns - left)[None, :, None]
    corners = [frame[top + i][:, left + j] for i in (0, 1) for j in (0, 1)]
    scaled = (corners[0] * (1 - across) + corners[1] * across) * (1 - down) + (
        corners[2] * (1 - across) + corners[3] * across
    ) * down
    spare = max(size) - 224
    for view, offset in enumerate((0, -(-spare // 2), spare)):
        crop = scaled[offset : offset + 224] if height > width else scaled[:, offset : offset + 224]
        assert np.abs(views[view, :, 0].permute(1, 2, 0).numpy() - crop).max() < 0.51


def test_a_video_of_a_turned_telephone_is_upright() -> None:
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    frame[:, :32] = 255
    content = bytearray(video([frame] * 3, qp="4"))
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = struct.pack(
        ">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30
    )  # 90 degrees clockwise
    pixels = videos.load(bytes(content))[0, 0, 0].int()
    assert pixels[:100].min() > 240
    assert pixels[124:].max() < 16


def test_a_long_video_is_sought_not_decoded_from_end_to_end() -> None:
    content = bytearray(video([noise(64, 64)] * 1000, "mp4", "mjpeg", "yuvj420p"))
    starts = [match.start() for match in re.finditer(b"\xff\xd8\xff", content)]
    line = timeline(bytes(content))
    assert len(starts) == len(line.times) == 1000
    seen = {line.times.index(time) for pair in videos.clip_ends(line) for time in pair}
    assert sorted(seen) == [0, 49, 190, 239, 380, 429, 570, 619, 760, 809]
    for number in set(range(1000)) - {frame + near for frame in seen for near in range(-60, 60)}:
        content[starts[number] : starts[number] + 600] = bytes(600)  # nobody looks there
    assert videos.load(bytes(content)).shape == (15, 3, 2, 224, 224)


def test_a_sound_is_no_video() -> None:
    assert "no video stream" in refusal(
        videos.load, sound(np.zeros(16_000, dtype=np.float32), kind="MP3", subtype=None)
    )


def test_a_video_without_frames_is_refused() -> None:
    refusal(videos.load, video([]))


@pytest.mark.parametrize("content", [b"", b"a text", picture(noise(8, 8)), video(counting(50))[:700]])
def test_what_is_no_video_is_refused(content: bytes) -> None:
    refusal(videos.load, content)


@pytest.mark.parametrize(("kind", "fragments"), [("mp4", ""), ("mp4", "yes"), ("avi", "")])
def test_a_truncated_video_is_refused(kind: str, fragments: str) -> None:
    content = video([noise(64, 64) for _ in range(60)], kind, g="10", fragments=fragments)
    refusal(videos.load, content[: len(content) * 2 // 3])


def test_a_damaged_stream_is_refused() -> None:
    content = bytearray(video(counting(50)))
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[start:end] = bytes(end - start)
    refusal(videos.load, bytes(content))


def test_an_absurd_declared_size_is_refused() -> None:
    content = bytearray(video(counting(5), "gif", "gif", "rgb8"))
    content[6:10] = struct.pack("<HH", 15_000, 15_000)
    assert "pixels" in refusal(videos.load, bytes(content))


def test_a_strip_is_refused() -> None:
    strip = np.zeros((16, 2000, 3), dtype=np.uint8)
    assert "times the other" in refusal(videos.load, video([strip], "matroska", "ffv1", "bgr0"))
