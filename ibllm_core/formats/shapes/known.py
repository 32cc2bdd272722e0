"""The row shapes that are known, and which of them a dataset's rows have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ibllm_core.formats.shapes.alpaca import read_alpaca
from ibllm_core.formats.shapes.caption import REFERENCE_KEYS, TEXT_KEYS, read_caption
from ibllm_core.formats.shapes.chat import CONVERSATION_KEYS, read_chat, read_conversations
from ibllm_core.formats.shapes.choice import read_choice
from ibllm_core.formats.shapes.media import MEDIA_KEYS
from ibllm_core.formats.shapes.question import ANSWER_KEYS, read_question
from ibllm_core.formats.shapes.turns import Reading

Keys = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A kind of row: how it is recognised by its keys, and the pure function that reads it.

    ``read`` raises ``InvalidDataError`` with what is wrong and the remedy. ``keys`` says for people what it takes.
    """

    name: str
    keys: str
    fits: Callable[[Keys], bool]
    read: Callable[[Mapping[str, Any]], Reading]


def shape_of(rows: Sequence[Keys]) -> Shape | None:
    """The shape that fits most rows (the first of ``SHAPES`` where several do); ``None`` where none fits any.

    A conversation beside a picture is LLaVA's; a set of which only some rows have one is LLaVA's too.
    """
    num_fitting = Counter({shape.name: sum(map(shape.fits, rows)) for shape in SHAPES})
    best = max(SHAPES, key=lambda shape: num_fitting[shape.name])
    if not num_fitting[best.name]:
        return None
    return LLAVA if best is SHAREGPT and num_fitting[LLAVA.name] else best


def present_keys(row: Mapping[str, Any]) -> Keys:
    """The keys of a row that have a value: tables have every column in every row."""
    return frozenset(key for key, value in row.items() if value is not None)


def _is_chat(keys: Keys) -> bool:
    return "messages" in keys


def _is_conversation(keys: Keys) -> bool:
    return not keys.isdisjoint(CONVERSATION_KEYS)


def _is_llava(keys: Keys) -> bool:
    return _is_conversation(keys) and "image" in keys


def _is_alpaca(keys: Keys) -> bool:
    return keys >= {"instruction", "output"}


def _has_medium(keys: Keys) -> bool:
    return not (keys.isdisjoint(REFERENCE_KEYS) and keys.isdisjoint(MEDIA_KEYS))


def _is_caption(keys: Keys) -> bool:
    return not keys.isdisjoint(TEXT_KEYS) and _has_medium(keys)


def _is_choice(keys: Keys) -> bool:
    return keys >= {"question", "choices", "answer"}


def _is_question(keys: Keys) -> bool:
    return "question" in keys and not keys.isdisjoint(ANSWER_KEYS) and "choices" not in keys and _has_medium(keys)


CHAT = Shape(name="OpenAI chat", keys="messages", fits=_is_chat, read=read_chat)
LLAVA = Shape(name="LLaVA conversations", keys="image and conversations", fits=_is_llava, read=read_conversations)
SHAREGPT = Shape(
    name="ShareGPT conversations", keys="conversations or items", fits=_is_conversation, read=read_conversations
)
ALPACA = Shape(name="Alpaca instructions", keys="instruction, input and output", fits=_is_alpaca, read=read_alpaca)
CAPTION = Shape(
    name="image-caption pairs",
    keys="image, file_name or url, and caption or text",
    fits=_is_caption,
    read=read_caption,
)
CHOICE = Shape(name="multiple-choice questions", keys="question, choices and answer", fits=_is_choice, read=read_choice)
QUESTION = Shape(
    name="visual questions",
    keys="image, file_name or url, and question and answers or answer",
    fits=_is_question,
    read=read_question,
)
SHAPES = (CHAT, LLAVA, SHAREGPT, ALPACA, CAPTION, CHOICE, QUESTION)
