"""Tokens as text while they come: no half characters, nothing of a stop string, the same text as all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ibllm_core.prompts import Tokenizer

FinishReason = Literal["stop", "length"]
HALF_CHARACTER = "\ufffd"


class TextStream:
    """The answer of one sample. ``finish`` is None while it goes on."""

    def __init__(self, tokenizer: Tokenizer, end_tokens: frozenset[int], stop: Sequence[str], limit: int) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._stop = [text for text in stop if text]
        self._limit = limit
        self._tokens: list[int] = []
        self._given = 0
        self.finish: FinishReason | None = None

    def add(self, token: int) -> str:
        """Take a token and return the text that is certain now; may be empty."""
        if token in self._end_tokens:
            self.finish = "stop"
        else:
            self._tokens.append(token)
            if len(self._tokens) == self._limit:
                self.finish = "length"
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True).lstrip()
        found = [text.index(stop) for stop in self._stop if stop in text]
        if found:
            self.finish = "stop"
            text = text[: min(found)]
        elif self.finish is None:
            text = text[: len(text) - self._uncertain(text)]
        new = text[self._given :]
        self._given = max(self._given, len(text))
        return new

    def _uncertain(self, text: str) -> int:
        """Characters at the end that later tokens may change or turn into a stop string."""
        half = len(text) - len(text.rstrip(HALF_CHARACTER))
        begun = (n for stop in self._stop for n in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:n]))
        return max(half, max(begun, default=0))
