"""One training row: OpenAI's chat format for vision fine-tuning, as a line of JSON.

The service checks every line with this on upload; the compile run reads samples with the same function.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from ibllm_core.errors import InvalidDataError


@dataclass(frozen=True, kw_only=True)
class ChatSample:
    """A single-turn sample; ``image`` holds the encoded picture, ``None`` where the row is text only."""

    instruction: str
    answer: str
    image: bytes | None


def parse_row(line: str | bytes, row: int) -> ChatSample:
    """Read one line. ``InvalidDataError`` names the row (from 1), what is wrong and the remedy."""
    try:
        messages = json.loads(line)["messages"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataError(
            f'row {row} is not a JSON object with "messages": write one {{"messages": [...]}} a line', row=row
        ) from error
    try:
        user, assistant = messages
        roles_fit = user["role"] == "user" and assistant["role"] == "assistant"
    except (ValueError, KeyError, TypeError) as error:
        raise _wrong_turns(row) from error
    if not roles_fit:
        raise _wrong_turns(row)
    texts, images = _split_parts(user.get("content"), row)
    answer = assistant.get("content")
    if not isinstance(answer, str) or not answer.strip():
        raise InvalidDataError(f"row {row} has an empty answer: give the assistant's message some text", row=row)
    if not texts or len(images) > 1:
        raise InvalidDataError(
            f"row {row} has {len(texts)} text parts and {len(images)} images: a user message needs text and at most "
            "one image",
            row=row,
        )
    return ChatSample(instruction="\n".join(texts), answer=answer, image=_decode(images[0], row) if images else None)


def _wrong_turns(row: int) -> InvalidDataError:
    return InvalidDataError(
        f"row {row} must hold exactly one user and then one assistant message: split longer conversations", row=row
    )


def _split_parts(content: Any, row: int) -> tuple[list[str], list[str]]:
    if isinstance(content, str):
        return [content], []
    texts: list[str] = []
    images: list[str] = []
    try:
        for part in content:
            if part["type"] == "text":
                texts.append(str(part["text"]))
            elif part["type"] == "image_url":
                images.append(str(part["image_url"]["url"]))
            else:
                raise KeyError(part["type"])
    except (KeyError, TypeError) as error:
        raise InvalidDataError(
            f'row {row}: the user\'s content must be text or a list of "text" and "image_url" parts', row=row
        ) from error
    return texts, images


def _decode(url: str, row: int) -> bytes:
    header, comma, payload = url.partition(",")
    if not (comma and header.startswith("data:image/") and header.endswith(";base64")):
        raise InvalidDataError(f"row {row}: the image must be a data URL (data:image/png;base64,...)", row=row)
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise InvalidDataError(f"row {row}: the image's base64 is broken: encode it again", row=row) from error
