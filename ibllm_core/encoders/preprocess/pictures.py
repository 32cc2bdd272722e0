"""Encoded pictures to Pillow's, with every declared size checked before a pixel is decoded; and their centre."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from ibllm_core.encoders.preprocess.refusal import refusing, unusable

SIDE = 224
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 64_000_000  # 8000 x 8000; 192 MB as RGB
MAX_ASPECT = 100  # with the short side at 224, the long one stays below 22,400
MAX_SCANS = 100  # passes of a progressive JPEG over the largest picture; encoders write about ten
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF 6.0, section 15


def decoded(content: bytes, *, medium: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of a picture in one of ``FORMATS``, its pixels loaded, in the mode that the file has.

    Raises ``InvalidDataError`` where it is no picture, truncated, larger than ``max_pixels``, or a hundred times as
    long as wide.
    """
    with refusing(medium):
        try:
            image = Image.open(BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError as error:  # whose own message is the address of an object
            raise unusable(medium, f"cannot be decoded (not one of {', '.join(FORMATS)}, or damaged)") from error
    _check_declared(image, content, medium, max_pixels)
    with refusing(medium):
        image.load()
    return image


def centre_square(image: Image.Image, resampling: Image.Resampling) -> Image.Image:
    """Resize the short side to 224 and cut the centre, to the pixel as torchvision's Resize and CenterCrop do."""
    short = min(image.size)
    width, height = (SIDE * side // short for side in image.size)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return image.resize((width, height), resampling).crop((left, top, left + SIDE, top + SIDE))


def check_size(width: int, height: int, medium: str, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ``InvalidDataError`` over ``max_pixels`` and where one side is a hundred times the other."""
    if width * height > max_pixels:
        raise unusable(medium, f"declares {width} x {height} pixels, more than the {max_pixels:,} allowed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise unusable(medium, f"has {width} x {height} pixels, one side more than {MAX_ASPECT} times the other")


def _check_declared(image: Image.Image, content: bytes, medium: str, max_pixels: int) -> None:
    check_size(*image.size, medium, max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = int(image.tag_v2.get(TILE_WIDTH, 0)) * int(image.tag_v2.get(TILE_LENGTH, 0))
        if tile > max_pixels:  # libtiff decodes whole tiles, however small the picture is
            raise unusable(medium, f"declares tiles of {tile:,} pixels, more than the {max_pixels:,} allowed")
    if image.format in ("JPEG", "MPO"):
        scans = content.count(b"\xff\xda")  # entropy-coded data escape 0xff, so these are markers
        if scans * image.width * image.height > MAX_SCANS * max_pixels:  # 95 bytes cost 13 ms at 64 million pixels
            raise unusable(medium, f"is a JPEG of {scans} scans, too slow to decode")
