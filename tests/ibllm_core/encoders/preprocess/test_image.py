"""Pictures as ImageBind sees them, and which are refused before they cost anything."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ibllm_core.encoders.preprocess.image import (
    CROP_AREA,
    CROP_ASPECT,
    MEAN,
    SIDE,
    STD,
    centre_crop,
    normalise,
    open_rgb,
    random_crop,
)
from tests.ibllm_core.encoders.preprocess.media import noise, picture, png_of, refusal

RED, WHITE = (255, 0, 0), (255, 255, 255)
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}, "PPM": {}}


def test_the_numbers_are_those_of_the_fact_sheet() -> None:
    assert SIDE == 224
    assert MEAN == (0.48145466, 0.4578275, 0.40821073)
    assert STD == (0.26862954, 0.26130258, 0.27577711)
    assert CROP_AREA == (0.9, 1.0)
    assert CROP_ASPECT == (0.75, 1.3333)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_lossless_format_gives_its_pixels(kind: str) -> None:
    pixels = noise(30, 40)
    assert (np.asarray(open_rgb(picture(pixels, kind, **LOSSLESS[kind]))) == pixels).all()


def test_a_jpeg_is_decoded_in_full() -> None:
    content = picture(noise(600, 800), "JPEG")
    assert (np.asarray(open_rgb(content)) == np.asarray(Image.open(BytesIO(content)))).all()


def test_the_first_frame_stands_for_an_animation() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, WHITE)]
    for kind in ("GIF", "WEBP"):
        content = picture(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(np.asarray(open_rgb(content), dtype=int) - RED).max() < 4


def test_alpha_lies_on_white() -> None:
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[0] = (255, 0, 0, 255)
    pixels[1] = (0, 0, 0, 128)
    rgb = np.asarray(open_rgb(picture(pixels)))
    assert (rgb[0] == RED).all()
    assert (rgb[1] == 127).all()
    assert (rgb[2:] == 255).all()


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.fromarray(np.eye(4, dtype=np.uint8)).convert("P")
    image.putpalette([0, 0, 255, 255, 0, 0])
    rgb = np.asarray(open_rgb(picture(image, transparency=0)))
    assert (rgb[np.eye(4, dtype=bool)] == RED).all()
    assert (rgb[~np.eye(4, dtype=bool)] == WHITE).all()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    ppm = b"P5 256 256 65535\n" + grey.astype(">u2").tobytes()
    for content in (picture(grey), picture(grey, "TIFF"), ppm):
        assert (np.asarray(open_rgb(content))[..., 1] == grey >> 8).all()


def test_cmyk_becomes_rgb() -> None:
    content = picture(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG")
    assert np.abs(np.asarray(open_rgb(content), dtype=int) - RED).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(orientation: int) -> None:
    pixels = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # EXIF 2.32, 4.6.4: where the zeroth row and the zeroth column of the file are on the display
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels.transpose(1, 0, 2)[:, ::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: pixels.transpose(1, 0, 2)[::-1],
    }[orientation]
    assert (np.asarray(open_rgb(picture(pixels, exif=exif))) == upright).all()


@pytest.mark.parametrize(("width", "height"), [(640, 480), (100, 333), (224, 224), (225, 224), (50, 50), (3, 290)])
def test_evaluation_resizes_the_short_side_and_cuts_the_centre(width: int, height: int) -> None:
    content = picture(noise(height, width))
    short, long = sorted((width, height))
    scaled = int(224 * long / short)
    size = (224, scaled) if width <= height else (scaled, 224)
    left, top = (round((side - 224) / 2.0) for side in size)
    expected = Image.open(BytesIO(content)).resize(size, Image.Resampling.BICUBIC)
    expected = expected.crop((left, top, left + 224, top + 224))
    crop = centre_crop(content)
    assert crop.dtype == torch.uint8
    assert (crop.permute(1, 2, 0).numpy() == np.asarray(expected)).all()


def test_a_random_crop_depends_on_content_and_seed_alone() -> None:
    content = picture(noise(300, 400))
    crop = random_crop(content, 7)
    assert crop.shape == (3, 224, 224)
    assert crop.dtype == torch.uint8
    torch.manual_seed(1)
    assert torch.equal(crop, random_crop(content, 7))
    assert not torch.equal(crop, random_crop(content, 8))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**63), st.integers(120, 150), st.integers(120, 150))
def test_a_random_crop_keeps_nine_tenths(seed: int, width: int, height: int) -> None:
    # A picture whose red and green are its coordinates says itself which part was kept.
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    crop = random_crop(picture(np.stack([across, down, down], axis=-1).astype(np.uint8)), seed).int()
    kept_width = int(crop[0].max() - crop[0].min()) + 1
    kept_height = int(crop[1].max() - crop[1].min()) + 1
    assert 0.87 < kept_width * kept_height / (width * height) <= 1
    assert 0.73 < kept_width / kept_height < 1.37


@pytest.mark.parametrize(("width", "height"), [(1, 100), (100, 1), (300, 20), (1, 1)])
def test_a_random_crop_of_a_strip_is_its_middle(width: int, height: int) -> None:
    assert random_crop(picture(noise(height, width).reshape(height, width, 3)), 0).shape == (3, 224, 224)


@pytest.mark.parametrize("shape", [(3, 8, 8), (5, 3, 8, 8), (3, 2, 8, 8), (15, 3, 2, 8, 8)])
def test_pixels_are_normalised_along_their_channels(shape: tuple[int, ...]) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    axis = -4 if shape[-3] == 2 else -3
    normalised = normalise(pixels)
    assert normalised.dtype == torch.float32
    for channel in range(3):
        plain = (pixels.select(axis, channel).double() / 255 - MEAN[channel]) / STD[channel]
        assert (normalised.select(axis, channel).double() - plain).abs().max() < 1e-6


def test_pixels_without_three_channels_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="three channels"):
        normalise(torch.zeros(4, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_picture_is_refused(kind: str, kept: float) -> None:
    content = picture(noise(60, 80), kind)
    assert "decoded" in refusal(centre_crop, content[: int(len(content) * kept)])


@pytest.mark.parametrize("content", [b"a cat on a mat", b"<svg/>", b"%PDF-1.4", b"\0" * 100, b"\xff\xd8\xff" * 9])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    assert "a picture cannot be decoded" in refusal(centre_crop, content)


def test_a_format_outside_the_list_is_refused() -> None:
    refusal(centre_crop, picture(Image.new("RGB", (8, 8)), "ICO"))


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (9_000, 9_000)])
def test_a_declared_giant_is_refused_unseen(width: int, height: int) -> None:
    content = png_of(width, height, zlib.compress(b"\0"))
    tracemalloc.start()
    begin = time.perf_counter()
    message = refusal(centre_crop, content)
    assert time.perf_counter() - begin < 0.2
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert "pixels" in message


def test_a_real_bomb_is_refused_unseen() -> None:
    side = 30_000  # 112 MB of zeros in 110 kB
    compressor = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    body = b"".join(compressor.compress(row * 1_000) for _ in range(side // 1_000)) + compressor.flush()
    content = png_of(side, side, body, bits=1)
    assert len(content) < 200_000
    begin = time.perf_counter()
    assert "pixels" in refusal(centre_crop, content)
    assert time.perf_counter() - begin < 0.2


def test_the_limit_of_pixels_is_the_callers() -> None:
    content = picture(noise(20, 20))
    assert open_rgb(content, max_pixels=400).size == (20, 20)
    assert "more than the 399 allowed" in refusal(open_rgb, content, max_pixels=399)


def test_a_strip_that_would_grow_on_resizing_is_refused() -> None:
    assert "times the other" in refusal(centre_crop, picture(Image.new("L", (60_000, 2))))


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    content = picture(noise(64, 64), "JPEG", progressive=True)
    last = content.rfind(b"\xff\xda")
    bomb = content[:-2] + content[last:-2] * 200 + content[-2:]
    assert open_rgb(content, max_pixels=4096).size == (64, 64)
    assert "scans" in refusal(open_rgb, bomb, max_pixels=4096)


@pytest.mark.parametrize(("side", "is_refused"), [(16, False), (20_000, True)])
def test_a_tiff_of_giant_tiles_is_refused(side: int, is_refused: bool) -> None:
    body = zlib.compress(bytes(256))
    values = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(body)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    header = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    content = header + body + struct.pack("<H", len(values)) + entries + bytes(4)
    if is_refused:
        assert "tiles" in refusal(open_rgb, content)
    else:
        assert open_rgb(content).size == (8, 8)


def test_numbers_without_a_known_white_are_refused() -> None:
    for dtype in (np.float32, np.int32):
        assert "32-bit" in refusal(open_rgb, picture(np.ones((8, 8), dtype=dtype), "TIFF"))
