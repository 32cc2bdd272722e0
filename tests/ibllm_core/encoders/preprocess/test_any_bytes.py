"""Whatever the bytes, a medium is decoded to its one shape or refused: nothing else is raised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ibllm_core.encoders.preprocess import audio, depth, image, imu, points, text, thermal, video
from ibllm_core.errors import InvalidDataError
from tests.ibllm_core.encoders.preprocess import media

RANDOM = np.random.default_rng(6)
HISS = RANDOM.standard_normal(4000).astype(np.float32) / 10


@dataclass(frozen=True, kw_only=True)
class Input:
    load: Callable[[bytes], Tensor]
    shape: tuple[int, ...]
    examples: tuple[bytes, ...]


INPUTS = {
    "image": Input(
        load=image.centre_crop,
        shape=(3, 224, 224),
        examples=tuple(media.picture(media.noise(20, 30), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF")),
    ),
    "random crop": Input(
        load=lambda content: image.random_crop(content, 0),
        shape=(3, 224, 224),
        examples=(media.picture(media.noise(20, 30), "BMP"), media.picture(media.noise(20, 30), "PPM")),
    ),
    "audio": Input(
        load=audio.load,
        shape=(3, 1, 128, 204),
        examples=(
            *(media.sound(HISS, kind=kind, subtype=None) for kind in ("WAV", "FLAC", "OGG")),
            media.sound(HISS),
            media.aac(HISS),
        ),
    ),
    "video": Input(
        load=video.load,
        shape=(15, 3, 2, 224, 224),
        examples=(
            media.video(media.counting(5)),
            media.video(media.counting(5), "webm", "libvpx"),
            media.video(media.counting(5), "gif", "gif", "rgb8"),
        ),
    ),
    "text": Input(load=text.load, shape=(77,), examples=("A dog's bark &amp; “café” 🐕".encode(),)),
    "depth": Input(
        load=depth.load,
        shape=(1, 224, 224),
        examples=(media.picture(np.full((20, 30), 900, dtype=np.uint16)), media.npy(np.ones((20, 30)))),
    ),
    "thermal": Input(load=thermal.load, shape=(1, 224, 224), examples=(media.picture(media.noise(20, 30, 1), "BMP"),)),
    "imu": Input(
        load=imu.load,
        shape=(6, 2000),
        examples=(media.npy(RANDOM.standard_normal((2000, 6))), b"1,2,3,4,5,6\n" * 2000),
    ),
    "points": Input(
        load=points.load,
        shape=(8192, 3),
        examples=(
            media.npy(RANDOM.random((9, 3))),
            media.npz(points=RANDOM.random((9, 3))),
            b"0 0 0\n1 0 0\n0 1 0\n",
            b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
            b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
            b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
            b"end_header\n0 0 0\n1 0 0\n",
        ),
    ),
}


def loaded_or_refused(given_input: Input, content: bytes) -> None:
    try:
        assert given_input.load(content).shape == given_input.shape
    except InvalidDataError as error:
        assert error.message.endswith("replace it or remove its row")


@pytest.mark.parametrize("name", INPUTS)
def test_every_example_is_decoded(name: str) -> None:
    for content in INPUTS[name].examples:
        assert INPUTS[name].load(content).shape == INPUTS[name].shape


@pytest.mark.parametrize("name", INPUTS)
@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=2000))
def test_random_bytes(name: str, content: bytes) -> None:
    loaded_or_refused(INPUTS[name], content)


@pytest.mark.parametrize("name", INPUTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_medium_with_some_bytes_changed_and_its_end_missing(name: str, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(INPUTS[name].examples)))
    for at in data.draw(st.lists(st.integers(0, min(len(content), 300) - 1), max_size=8)):
        content[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    loaded_or_refused(INPUTS[name], bytes(content[:end]))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("other", INPUTS)
def test_a_medium_of_another_kind(name: str, other: str) -> None:
    for content in INPUTS[other].examples:
        loaded_or_refused(INPUTS[name], content)
