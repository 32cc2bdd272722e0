"""Samples as token ids with labels.

Prompt and answer are tokenised apart and joined, so that the prompt's tokens never depend on the answer, and
every answer ends with the tokenizer's end-of-sequence token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ibllm_core.contract.templates import TEMPLATES
from ibllm_core.errors import InvalidSpecError


class Tokenizer(Protocol):
    """What this module needs of a tokenizer."""

    bos_token_id: int | None
    eos_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""


@dataclass(frozen=True, kw_only=True)
class TokenisedSample:
    """Token ids of one sample; labels are the tokens from ``prompt_length`` on."""

    tokens: list[int]
    prompt_length: int


def prompt_text(template: str, instruction: str) -> str:
    """The prompt for an instruction; ``InvalidSpecError`` for a template that does not exist."""
    if template not in TEMPLATES:
        raise InvalidSpecError(f"there is no template {template!r}; choose one of {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[template].format(instruction=instruction)


def prompt_tokens(tokenizer: Tokenizer, template: str, instruction: str) -> list[int]:
    """Tokens of the prompt alone, as training and generation both see it."""
    return tokenizer.encode(prompt_text(template, instruction), add_special_tokens=False)


def tokenise(tokenizer: Tokenizer, template: str, instruction: str, answer: str) -> TokenisedSample:
    """Prompt, answer and end of sequence as one sample."""
    prompt = prompt_tokens(tokenizer, template, instruction)
    reply = tokenizer.encode(" " + answer.strip(), add_special_tokens=False)
    return TokenisedSample(tokens=[*prompt, *reply, tokenizer.eos_token_id], prompt_length=len(prompt))
