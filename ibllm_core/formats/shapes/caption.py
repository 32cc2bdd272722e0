"""Captions: a picture (or another medium) and what is to be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ibllm_core.contract.media import Modality
from ibllm_core.contract.templates import CAPTION_INSTRUCTION
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media, Turn
from ibllm_core.formats.shapes.magic import modality_of
from ibllm_core.formats.shapes.media import MEDIA_KEYS, media_of, read_media
from ibllm_core.formats.shapes.turns import Reading
from ibllm_core.formats.shapes.values import filled_text

# The first that a row has is taken: bytes in the row before a path, a path before the address it was fetched from.
REFERENCE_KEYS = ("image_path", "file_name", "filepath", "image_url", "url", "URL")
TEXT_KEYS = ("caption", "text", "TEXT", "cls")


def read_caption(row: Mapping[str, Any]) -> Reading:
    """The medium under a key of its kind, or under one of ``REFERENCE_KEYS``, and its caption."""
    media = media_of(row) or read_reference(row)
    if not media:
        raise InvalidDataError(
            f"has no medium: add one as {_either((*MEDIA_KEYS, *REFERENCE_KEYS))}, or remove the row"
        )
    key = next((key for key in TEXT_KEYS if row.get(key) is not None), None)
    if key is None:
        raise InvalidDataError(f"has no caption: add one as {_either(TEXT_KEYS[:2])}, or remove the row")
    caption = filled_text(row[key], f'"{key}"', "write the caption that is to be learnt, or remove the row")
    if key == "cls" and caption.strip().isdecimal():
        raise InvalidDataError(f"has only the number of a class ({caption.strip()}): add a .txt file with a caption")
    return (Turn(instruction=CAPTION_INSTRUCTION, answer=caption),), tuple(media), ""


def read_reference(row: Mapping[str, Any]) -> list[Media]:
    """The medium under the first of ``REFERENCE_KEYS`` that has a value, or none."""
    for key in REFERENCE_KEYS:
        value = row.get(key)
        if value is not None and value != "":
            modality = modality_of(value) if isinstance(value, str) else None
            return [read_media(value, modality or Modality.IMAGE, f'"{key}"')]
    return []


def _either(keys: tuple[str, ...]) -> str:
    return ", ".join(f'"{key}"' for key in keys[:-1]) + f' or "{keys[-1]}"'
