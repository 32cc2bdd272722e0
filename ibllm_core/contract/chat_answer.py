"""What ``POST /v1/chat/completions`` answers, whole or in chunks, as OpenAI's clients read it."""

from __future__ import annotations

import json
from typing import Any, Literal

from ibllm_core.contract.base import Contract

Finish = Literal["stop", "length"]
DONE = b"data: [DONE]\n\n"


class Usage(Contract):
    """Tokens of a request; the prompt's include the positions of its media, the answer's the token that ended it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(Contract):
    """The model's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(Contract):
    """The one answer."""

    index: Literal[0] = 0
    message: AnswerMessage
    finish_reason: Finish
    logprobs: None = None


class ChatCompletion(Contract):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice]
    usage: Usage


class Delta(Contract):
    """A piece of the message; its role comes with the first."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(Contract):
    """The one answer's next piece; ``finish_reason`` comes with the last, which is empty."""

    index: Literal[0] = 0
    delta: Delta
    finish_reason: Finish | None = None


class ChatChunk(Contract):
    """A piece of an answer. Where usage was asked for, a last chunk without choices has it."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None


def as_event(chunk: ChatChunk) -> bytes:
    """A chunk as a server-sent event."""
    shown = chunk.model_dump(mode="json", exclude_none=True)
    for choice in shown["choices"]:
        choice.setdefault("finish_reason", None)
    return b"data: " + _json(shown) + b"\n\n"


def error_body(message: str, *, type: str, code: str, param: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def error_event(body: dict[str, Any]) -> bytes:
    """An error in a stream that has begun, after which nothing comes."""
    return b"data: " + _json(body) + b"\n\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
