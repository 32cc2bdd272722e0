"""OpenAI's chat rows, with LLaMA-Factory's lists of media beside them, and LLaVA's and ShareGPT's conversations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media
from ibllm_core.formats.shapes.media import media_of, read_base64, read_media
from ibllm_core.formats.shapes.turns import ASSISTANT, ROLES, USER, Message, Reading, conversation
from ibllm_core.formats.shapes.values import kind_of, list_of, optional_text, text_of

CONVERSATION_KEYS = ("conversations", "conversation", "items")

_CHAT_EXAMPLE = '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
_LLAVA_EXAMPLE = '[{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]'
_URL_PARTS = {"image_url": Modality.IMAGE, "audio_url": Modality.AUDIO, "video_url": Modality.VIDEO}


def read_chat(row: Mapping[str, Any]) -> Reading:
    """``messages``; a content is text, or a list of parts: text, ``image_url``, ``input_audio``, ..."""
    return _read(row, "messages", _CHAT_EXAMPLE)


def read_conversations(row: Mapping[str, Any]) -> Reading:
    """``conversations`` (or ``items``) of from and value, or of role and content; media beside them."""
    key = next((key for key in CONVERSATION_KEYS if row.get(key) is not None), CONVERSATION_KEYS[0])
    return _read(row, key, _LLAVA_EXAMPLE)


def _read(row: Mapping[str, Any], key: str, example: str) -> Reading:
    if row.get(key) is None:
        raise InvalidDataError(f'has no "{key}": add {example}, or remove the row')
    media = media_of(row)
    messages = [
        _read_message(item, f"{key}[{index}]", media)
        for index, item in enumerate(list_of(row[key], f'"{key}"', example))
    ]
    return conversation(messages, media, optional_text(row, "system"), row)


def _read_message(item: object, field: str, media: list[Media]) -> Message:
    """Read a message; the media of its parts are appended to ``media``."""
    if not isinstance(item, dict):
        raise InvalidDataError(f"{field} is {kind_of(item)}, not an object: write who says it, and what")
    role_key, text_key = ("from", "value") if item.get("from") is not None else ("role", "content")
    name = text_of(item.get(role_key), f"{field}.{role_key}")
    if name not in ROLES:
        raise InvalidDataError(f"{field}.{role_key} is {name[:40]!r}: write one of {', '.join(ROLES)}")
    if ROLES[name] == ASSISTANT and item.get("weight") not in (None, 1):
        raise InvalidDataError(f"{field}.weight is not 1, and every answer is learnt: remove the message or the weight")
    content = item.get(text_key)
    if not isinstance(content, list):
        return Message(role=ROLES[name], text=text_of(content, f"{field}.{text_key}"), field=field)
    num_media = len(media)
    texts = _read_parts(content, f"{field}.{text_key}", media if ROLES[name] == USER else None)
    return Message(role=ROLES[name], text="\n".join(texts), field=field, is_media=not texts and len(media) > num_media)


def _read_parts(parts: list[Any], field: str, media: list[Media] | None) -> list[str]:
    """The texts; media are appended to ``media``, which is ``None`` where only text may stand."""
    texts: list[str] = []
    for index, part in enumerate(parts):
        place = f"{field}[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(text_of(part.get("text"), f"{place}.text"))
        elif kind not in _URL_PARTS and kind != "input_audio":
            raise InvalidDataError(
                f"{place} is no part that can be read: write an object of type text, {', '.join(_URL_PARTS)} or "
                "input_audio"
            )
        elif media is None:
            raise InvalidDataError(f"{place} is a medium, which only the user may send: move it to a user message")
        else:
            media.append(_read_medium(part, kind, place))
    return texts


def _read_medium(part: Mapping[str, Any], kind: str, place: str) -> Media:
    body = part.get(kind)
    if not isinstance(body, dict):
        raise InvalidDataError(f"{place}.{kind} is {kind_of(body)}, not an object: write it as OpenAI's API does")
    if kind == "input_audio":
        data = text_of(body.get("data"), f"{place}.{kind}.data")
        return Media(modality=Modality.AUDIO, content=read_base64(data, Modality.AUDIO, f"{place}.{kind}.data"))
    url = text_of(body.get("url"), f"{place}.{kind}.url")
    return read_media(url, _URL_PARTS[kind], f"{place}.{kind}.url")
