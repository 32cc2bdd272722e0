"""Samples as token ids with labels.

Prompt and answer are tokenised apart and joined, so that the prompt's tokens never depend on the answer, and
every answer ends with an end token. Nothing is cut: what does not fit is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from ibllm_core.contract.templates import CHAT, render
from ibllm_core.errors import InvalidPromptError


class Tokenizer(Protocol):
    """What this module needs of a tokenizer of transformers."""

    bos_token_id: int | None
    eos_token_id: int
    all_special_ids: list[int]
    all_special_tokens: list[str]
    added_tokens_decoder: dict[int, Any]
    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""

    def decode(self, tokens: Any, *, skip_special_tokens: bool = False) -> str:
        """The text of token ids."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """The vocabulary's own spelling of token ids."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """A conversation in the words of the base."""


@dataclass(frozen=True, kw_only=True)
class TokenisedSample:
    """Token ids of one sample; labels are the tokens from ``prompt_length`` on."""

    tokens: list[int]
    prompt_length: int


@dataclass(frozen=True, kw_only=True)
class Prompter:
    """A tokenizer with a template: prompts for generation and samples for training come from the same place."""

    tokenizer: Tokenizer
    template: str

    def prompt(self, instruction: str, context: str = "") -> list[int]:
        """Tokens of the prompt, with a beginning-of-sequence token where the base's tokenizer sets one."""
        self._check_plain(instruction + context)
        if self.template == CHAT:
            text = self._chat([_user_turn(instruction, context)], add_generation_prompt=True)
            tokens = self.tokenizer.encode(text, add_special_tokens=False)  # the template wrote its own
        else:
            text = render(self.template, instruction, context)
            tokens = [*self._beginning, *self.tokenizer.encode(text, add_special_tokens=False)]
        if not tokens:
            raise InvalidPromptError("the prompt is empty: give an instruction")
        return tokens

    def sample(self, instruction: str, answer: str, context: str = "") -> TokenisedSample:
        """Prompt, answer and end token; ``InvalidPromptError`` for an answer without text."""
        prompt, reply = self.prompt(instruction, context), answer.strip()
        if not reply:
            raise InvalidPromptError("the answer is empty: give it some text, or leave the sample out")
        self._check_plain(reply)
        # A template ends with a colon, after which words stand apart; a chat template says for itself.
        apart = self._closing[0] if self.template == CHAT else "" if self._adds_space else " "
        tokens = self.tokenizer.encode(apart + reply, add_special_tokens=False)
        return TokenisedSample(tokens=[*prompt, *tokens, self.end_token], prompt_length=len(prompt))

    @property
    def end_token(self) -> int:
        """What ends an answer: the end of a turn in a chat template, else the end of the sequence."""
        return self._closing[1] if self.template == CHAT else self.tokenizer.eos_token_id

    @property
    def end_tokens(self) -> frozenset[int]:
        """What ends an answer in generation: a base may end the sequence where it should end the turn."""
        return frozenset({self.end_token, self.tokenizer.eos_token_id})

    @cached_property
    def _beginning(self) -> list[int]:
        """What the tokenizer sets before every text: LLaMA's ``<s>``, nothing for SmolLM2."""
        if self.tokenizer.bos_token_id is None:
            return []
        return [t for t in self.tokenizer.encode("", add_special_tokens=True)[:1] if t == self.tokenizer.bos_token_id]

    @cached_property
    def _adds_space(self) -> bool:
        """Whether the tokenizer sets a space before a text by itself, as SentencePiece does."""
        first = self.tokenizer.convert_ids_to_tokens(self.tokenizer.encode("a", add_special_tokens=False))[0]
        return first.startswith("▁")

    @cached_property
    def _closing(self) -> tuple[str, int]:
        """What the chat template sets before the answer, and the special token that it sets after it."""
        turns = [_user_turn("a", ""), {"role": "assistant", "content": "b"}]
        prompt = self._chat(turns[:1], add_generation_prompt=True)
        whole = self._chat(turns, add_generation_prompt=False)
        before, _, after = whole.removeprefix(prompt).partition("b")
        specials = set(self._specials.values())
        ends = [t for t in self.tokenizer.encode(after, add_special_tokens=False) if t in specials]
        if not whole.startswith(prompt) or before.strip() or not ends:
            raise InvalidPromptError(
                "the base's chat template cannot be trained with: its prompt changes once the answer is there, or no "
                "special token ends the answer; choose another template"
            )
        return before, ends[0]

    @cached_property
    def _specials(self) -> dict[str, int]:
        """Every special token: those with a role, and those that are only marked so, as Llama 3's ends of turns."""
        tokenizer = self.tokenizer
        marked = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        return marked | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))

    def _check_plain(self, text: str) -> None:
        """A special token in a text would end the sample, or begin another turn."""
        found = [token for token in self._specials if token in text]
        if found:
            raise InvalidPromptError(
                f"the text holds {found[0]!r}, which the base's tokenizer takes for a token of its own: remove it"
            )

    def _chat(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        if not self.tokenizer.chat_template:
            raise InvalidPromptError("the base's tokenizer has no chat template: choose template 'alpaca' or 'short'")
        text: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text


def _user_turn(instruction: str, context: str) -> dict[str, str]:
    return {"role": "user", "content": f"{instruction}\n\n{context}" if context else instruction}
