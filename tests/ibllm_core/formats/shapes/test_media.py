"""References, data URLs and bytes."""

from __future__ import annotations

import pytest

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media
from ibllm_core.formats.shapes.magic import sniff
from ibllm_core.formats.shapes.media import MAX_REFERENCE, read_media
from tests.ibllm_core.formats.files import base64_of, data_url, picture, sound


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_pictures_are_known_by_their_bytes(kind: str) -> None:
    content = picture(kind=kind)
    assert sniff(content) == {Modality.IMAGE}
    url = data_url(content, f"image/{kind.lower()}")
    assert read_media(url, Modality.IMAGE, "it") == Media(modality=Modality.IMAGE, content=content)


@pytest.mark.parametrize(
    ("head", "modalities"),
    [
        (sound(), {"audio"}),
        (b"fLaC\0\0\0\x22", {"audio"}),
        (b"ID3\x04\0\0", {"audio"}),
        (b"\xff\xfb\x90\x64", {"audio"}),
        (b"OggS\0\x02", {"audio", "video"}),
        (b"\0\0\0\x20ftypisom", {"audio", "video"}),
        (b"\0\0\0\x20ftypavif", {"image"}),
        (b"\x1a\x45\xdf\xa3", {"audio", "video"}),
        (b"RIFF\0\0\0\0AVI LIST", {"video"}),
        (b"RIFF\0\0\0\0ABCD", set()),
        (b"<svg></svg>", set()),
        (b"", set()),
    ],
)
def test_media_are_known_by_their_first_bytes(head: bytes, modalities: set[str]) -> None:
    assert sniff(head) == modalities


def test_a_point_cloud_may_be_any_bytes() -> None:
    url = data_url(b"0 0 1\n", "application/octet-stream")
    assert read_media(url, Modality.POINT, "it").content == b"0 0 1\n"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (data_url(b"only text"), "does not hold image data .* begins with b'only tex'"),
        (data_url(sound()), "does not hold image data"),
        (data_url(picture(), "text/plain"), "is a data URL of 'text/plain' where image/"),
        ("data:image/png;base64,AAA!", "holds broken base64"),
        ("data:image/png;base64,AAA", "holds broken base64"),
        ("data:image/png;base64,ÄÖÜ=", "holds broken base64"),
        ("data:image/png;base64,", "holds no bytes"),
        ("data:image/png,abc", "is a data URL without base64"),
        ("data:image/png;base64", "is a data URL without base64"),
        (base64_of(bytes(MAX_REFERENCE)), "too many for a path"),
        ("a\0.png", "NUL"),
        ("\udc80.png", "surrogate"),
        (["a.png"], "is a list, neither a path"),
        (b"", "holds no bytes"),
        ({"path": ""}, "is empty"),
        ({"bytes": "text", "path": "a.png"}, "is an object, neither a path"),
    ],
)
def test_what_is_no_medium(value: object, reason: str) -> None:
    with pytest.raises(InvalidDataError, match=f"it .*{reason}|it {reason}"):
        read_media(value, Modality.IMAGE, "it")
