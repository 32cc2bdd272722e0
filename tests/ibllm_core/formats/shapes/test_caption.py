"""A medium and what is to be said of it."""

from __future__ import annotations

from typing import Any

import pytest

from ibllm_core.contract.media import Modality
from ibllm_core.contract.templates import CAPTION_INSTRUCTION
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media, Turn
from ibllm_core.formats.shapes.caption import read_caption


@pytest.mark.parametrize("key", ["image", "image_path", "file_name", "filepath", "image_url", "url", "URL"])
@pytest.mark.parametrize("text_key", ["caption", "text", "TEXT"])
def test_the_keys_that_are_known(key: str, text_key: str) -> None:
    assert read_caption({key: "a.png", text_key: "a dot"}) == (
        (Turn(instruction=CAPTION_INSTRUCTION, answer="a dot"),),
        (Media(modality=Modality.IMAGE, where="a.png"),),
        "",
    )


@pytest.mark.parametrize("modality", set(Modality) - {Modality.TEXT})
def test_every_modality_has_its_key(modality: Modality) -> None:
    assert read_caption({str(modality): "a.bin", "caption": "a dot"})[1][0].modality is modality


@pytest.mark.parametrize(
    ("where", "modality"),
    [("a.wav", "audio"), ("http://x.org/a.MP4?size=2", "video"), ("a.jpg", "image"), ("http://x.org/picture", "image")],
)
def test_the_extension_tells_the_modality_of_a_file(where: str, modality: str) -> None:
    assert read_caption({"url": where, "caption": "a dot"})[1][0].modality == modality


def test_bytes_are_taken_before_the_address_they_came_from() -> None:
    row = {"image": {"bytes": b"\xff\xd8\xff", "path": None}, "url": "http://x.org/a.jpg", "text": "a dot"}
    assert read_caption(row)[1] == (Media(modality=Modality.IMAGE, content=b"\xff\xd8\xff"),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "a.png"}, 'no caption: add one as "caption" or "text"'),
        ({"caption": "a dot"}, "no medium"),
        ({"url": "", "caption": "a dot"}, "no medium"),
        ({"url": "a.png", "caption": ""}, '"caption" is empty'),
        ({"url": "a.png", "caption": 42}, '"caption" is a number, not text'),
        ({"url": "a.png", "caption": ["a", "b"]}, '"caption" is a list, not text'),
        ({"url": 42, "caption": "a dot"}, '"url" is a number'),
        ({"image": "a.png", "cls": "3"}, "only the number of a class"),
        ({"image": {"path": 3}, "caption": "a dot"}, '"image" is an object'),
        ({"image": {"bytes": b"", "path": None}, "caption": "a dot"}, '"image" holds no bytes'),
    ],
)
def test_a_bad_row_says_what_is_wrong(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        read_caption(row)
