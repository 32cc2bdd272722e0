"""A list of messages becomes turns: who may follow whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media, Turn
from ibllm_core.formats.shapes.markers import without_markers
from ibllm_core.formats.shapes.values import filled_text

Reading = tuple[tuple[Turn, ...], tuple[Media, ...], str]
"""What a shape makes of a row: turns, media, system text."""

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bing": ASSISTANT,
    "bard": ASSISTANT,
    "system": SYSTEM,
    "developer": SYSTEM,
}


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message with its role (one of the three) and the field that it stands in; ``is_media`` where it has no text."""

    role: str
    text: str
    field: str
    is_media: bool = False


def conversation(messages: Sequence[Message], media: Sequence[Media], system: str, row: Mapping[str, Any]) -> Reading:
    """Pair questions with answers; ``system`` is what the row says outside of its messages."""
    if messages and messages[0].role == SYSTEM:
        if system:
            raise InvalidDataError('has a system message and "system": keep one of them')
        system, messages = messages[0].text, messages[1:]
    messages = _with_media_joined(messages)
    _check_order(messages)
    questions, answers = messages[::2], messages[1::2]
    texts = without_markers([question.text for question in questions], media, row)
    turns = tuple(
        Turn(
            instruction=filled_text(text, question.field, "ask something, a marker or a picture alone is no question"),
            answer=filled_text(answer.text, answer.field, "give the assistant's message some text"),
        )
        for text, question, answer in zip(texts, questions, answers, strict=True)
    )
    return turns, tuple(media), system


def _with_media_joined(messages: Sequence[Message]) -> Sequence[Message]:
    """OpenAI's own example of vision fine-tuning asks in one user message and shows the picture in the next."""
    if not any(message.is_media for message in messages):
        return messages
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role and (joined[-1].is_media or message.is_media):
            joined[-1] = message if joined[-1].is_media else joined[-1]
        else:
            joined.append(message)
    return joined


def _check_order(messages: Sequence[Message]) -> None:
    if not any(message.role == ASSISTANT for message in messages):
        raise InvalidDataError("has no assistant message: add the answer that is to be learnt")
    for index, message in enumerate(messages):
        expected = (USER, ASSISTANT)[index % 2]
        if message.role == expected:
            continue
        if message.role == SYSTEM:
            raise InvalidDataError(f"{message.field} is a system message after the first: move it to the front")
        if index == 0:
            raise InvalidDataError(f"{message.field} is the assistant's, nothing was asked: begin with the user")
        raise InvalidDataError(
            f"{message.field} is the second {message.role} message in a row: join the two, or add what stood between"
        )
    if len(messages) % 2:
        raise InvalidDataError(f"{messages[-1].field} is a question without an answer: answer or remove it")
