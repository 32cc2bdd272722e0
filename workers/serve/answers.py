"""Pieces of text as OpenAI's answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from ibllm_core.contract.chat_answer import (
    DONE,
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    Delta,
    Usage,
    as_event,
)
from workers.serve.generation import Piece


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one request; ``prompt_tokens`` are the positions that messages and media take."""

    model: str
    prompt_tokens: int
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, pieces: AsyncGenerator[Piece, None]) -> ChatCompletion:
        """All of it at once."""
        text, last = "", None
        async with aclosing(pieces):
            async for last in pieces:
                text += last.text
        assert last and last.finish
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=(Choice(message=AnswerMessage(content=text.rstrip()), finish_reason=last.finish),),
            usage=self._usage(last),
        )

    async def events(self, pieces: AsyncGenerator[Piece, None], *, with_usage: bool) -> AsyncGenerator[bytes]:
        """Server-sent events: the role, the text, why it ended, what it used where that was asked for."""
        yield self._event(Delta(role="assistant", content=""))
        last = None
        async with aclosing(pieces):
            async for last in pieces:
                if last.text:
                    yield self._event(Delta(content=last.text))
        assert last and last.finish
        yield as_event(self._chunk(ChunkChoice(delta=Delta(), finish_reason=last.finish)))
        if with_usage:
            yield as_event(self._chunk(usage=self._usage(last)))
        yield DONE

    def _event(self, delta: Delta) -> bytes:
        return as_event(self._chunk(ChunkChoice(delta=delta)))

    def _chunk(self, *choices: ChunkChoice, usage: Usage | None = None) -> ChatChunk:
        return ChatChunk(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)

    def _usage(self, last: Piece) -> Usage:
        total = self.prompt_tokens + last.num_tokens
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=last.num_tokens, total_tokens=total)
