"""The media of a row: references, data URLs, bytes, and the structs that Hugging Face's datasets store."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media
from ibllm_core.formats.shapes.magic import sniff
from ibllm_core.formats.shapes.values import kind_of, text_of

MEDIA_KEYS = {
    "image": Modality.IMAGE,
    "images": Modality.IMAGE,
    "audio": Modality.AUDIO,
    "audios": Modality.AUDIO,
    "video": Modality.VIDEO,
    "videos": Modality.VIDEO,
    "depth": Modality.DEPTH,
    "thermal": Modality.THERMAL,
    "imu": Modality.IMU,
    "point": Modality.POINT,
    "points": Modality.POINT,
}
MAX_REFERENCE = 4096  # Linux's longest path

_MIME_KINDS = {
    Modality.IMAGE: "image",
    Modality.DEPTH: "image",
    Modality.THERMAL: "image",
    Modality.AUDIO: "audio",
    Modality.VIDEO: "video",
}


def media_of(row: Mapping[str, Any]) -> list[Media]:
    """All media under the keys of ``MEDIA_KEYS``, in their order; null, empty text and an empty list are none."""
    media: list[Media] = []
    for key, modality in MEDIA_KEYS.items():
        value = row.get(key)
        if value is None or value in ("", []):
            continue
        if isinstance(value, list):
            media += [read_media(item, modality, f'"{key}"[{index}]') for index, item in enumerate(value)]
        else:
            media.append(read_media(value, modality, f'"{key}"'))
    return media


def read_media(value: object, modality: Modality, field: str) -> Media:
    """One medium: a data URL, another reference (kept as it is), bytes, or a struct of ``bytes`` and ``path``."""
    if isinstance(value, str):
        if value.startswith("data:"):
            return Media(modality=modality, content=_read_data_url(value, modality, field))
        return Media(modality=modality, where=_reference(value, field))
    if isinstance(value, bytes):
        return Media(modality=modality, content=_filled(value, field))
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return Media(modality=modality, content=_filled(value["bytes"], field))
    if isinstance(value, dict) and value.get("bytes") is None and isinstance(value.get("path"), str):
        return Media(modality=modality, where=_reference(value["path"], field))
    raise InvalidDataError(
        f"{field} is {kind_of(value)}, neither a path, an address nor a data URL: write one of these as text"
    )


def read_base64(payload: str, modality: Modality, field: str) -> bytes:
    """Decode base64 text; its bytes must be of the modality's kind."""
    try:
        content = base64.b64decode(payload, validate=True)
    except ValueError as error:
        raise InvalidDataError(f"{field} holds broken base64 ({error}): encode the file again") from error
    _filled(content, field)
    if modality in _MIME_KINDS and Modality(_MIME_KINDS[modality]) not in sniff(content):
        raise InvalidDataError(
            f"{field} does not hold {_MIME_KINDS[modality]} data (it begins with {content[:8]!r}): encode the bytes of "
            f"the {_MIME_KINDS[modality]} file itself"
        )
    return content


def _read_data_url(url: str, modality: Modality, field: str) -> bytes:
    header, comma, payload = url.partition(",")
    mime, *parameters = header.removeprefix("data:").split(";")
    kind = _MIME_KINDS.get(modality, "application")
    if not comma or "base64" not in parameters:
        raise InvalidDataError(
            f"{field} is a data URL without base64 ({url[:40]!r}): write data:{kind}/...;base64,... "
        )
    if modality in _MIME_KINDS and not mime.startswith(f"{kind}/"):
        raise InvalidDataError(f"{field} is a data URL of {mime!r} where {kind}/... belongs: use the fitting field")
    return read_base64(payload, modality, field)


def _reference(value: str, field: str) -> str:
    if not value:
        raise InvalidDataError(f"{field} is empty: write a path, an address or a data URL")
    if len(value) > MAX_REFERENCE:
        raise InvalidDataError(
            f"{field} has {len(value)} characters, too many for a path or an address: write base64 as "
            "data:image/png;base64,..."
        )
    return text_of(value, field)


def _filled(content: bytes, field: str) -> bytes:
    if not content:
        raise InvalidDataError(f"{field} holds no bytes: write the file's content")
    return content
