"""Small real media, made by the libraries that people make theirs with."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from ibllm_core.errors import InvalidDataError

NOISE = np.random.default_rng(0)


def refusal(function: Any, *arguments: Any, **named: Any) -> str:
    """The message with which a medium is refused, after checking that it names the remedy."""
    with pytest.raises(InvalidDataError) as caught:
        function(*arguments, **named)
    assert caught.value.message.endswith("replace it or remove its row")
    return caught.value.message


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return NOISE.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def picture(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def png_of(width: int, height: int, body: bytes, bits: int = 8) -> bytes:
    """A grey PNG whose header declares a size and whose zlib stream is ``body``."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def sound(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", subtype: str | None = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def aac(samples: np.ndarray, rate: int = 48_000) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return file.getvalue()


def video(
    frames: Sequence[np.ndarray], kind: str = "mp4", codec: str = "libx264", pixels: str = "yuv420p", **options: str
) -> bytes:
    """25 frames a second, each ``[H, W, 3]``; ``fragments`` makes an MP4 that can be read without its end."""
    file = io.BytesIO()
    muxing = {"movflags": "frag_keyframe+empty_moov"} if options.pop("fragments", "") else {}
    with av.open(file, "w", format=kind, options=muxing) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.pix_fmt = pixels
        stream.height, stream.width = frames[0].shape[:2] if frames else (64, 64)
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def counting(num_frames: int, side: int = 64) -> list[np.ndarray]:
    """Grey frames, each as bright as its number."""
    return [np.full((side, side, 3), number, dtype=np.uint8) for number in range(num_frames)]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def npy_declaring(shape: str, dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
