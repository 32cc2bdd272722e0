"""Samples as token ids with labels; needs no torch.

Prompts and answers are tokenised apart and joined, so that a prompt's tokens never depend on what follows, and every
answer ends with an end token. Nothing is cut: what does not fit is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from jinja2 import TemplateError

from ibllm_core.contract.templates import CHAT, render
from ibllm_core.errors import InvalidPromptError
from ibllm_core.formats.sample import Turn

# For a chat template that asks for today: a prompt must be the same tomorrow. It is the day that Llama 3's templates
# take where there is none to ask for.
SAME_DAY = "{% macro strftime_now(pattern) %}26 Jul 2024{% endmacro %}"
KNOWN_PROMPTS = 4096  # captions ask the same question a million times


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
    """Token ids of one sample; ``labels`` are the spans ``[start, end)`` of its answers, in order."""

    tokens: list[int]
    labels: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class _Closing:
    """What a chat template sets before an answer, and after it up to the special token that ends it."""

    before: str
    after: str
    token: int


@dataclass(frozen=True, kw_only=True)
class Prompter:
    """A tokenizer with a template: prompts for generation and samples for training come from the same place."""

    tokenizer: Tokenizer
    template: str
    _known: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def prompt(self, instruction: str, context: str = "", *, system: str = "") -> list[int]:
        """Tokens of the prompt, with a beginning-of-sequence token where the base's tokenizer sets one."""
        turn = Turn(instruction=instruction, context=context, answer="")
        return self._tokens_of_prompt(next(self._prompts([turn], system)), is_first=True)

    def sample(self, turns: Sequence[Turn], *, system: str = "") -> TokenisedSample:
        """A conversation with an end token after each answer; ``InvalidPromptError`` for an answer without text."""
        tokens: list[int] = []
        labels = []
        # A template ends with a colon, after which words stand apart; a chat template says for itself.
        apart = self._closing.before if self.template == CHAT else "" if self._adds_space else " "
        for number, (turn, prompt) in enumerate(zip(turns, self._prompts(turns, system), strict=True)):
            reply = turn.answer.strip()
            if not reply:
                raise InvalidPromptError("the answer is empty: give it some text, or leave the sample out")
            self._check_plain(reply)
            tokens += self._tokens_of_prompt(prompt, is_first=number == 0)
            start = len(tokens)
            tokens += [*self.tokenizer.encode(apart + reply, add_special_tokens=False), self.end_token]
            labels.append((start, len(tokens)))
        return TokenisedSample(tokens=tokens, labels=tuple(labels))

    @property
    def end_token(self) -> int:
        """What ends an answer: the end of a turn in a chat template, else the end of the sequence."""
        return self._closing.token if self.template == CHAT else self.tokenizer.eos_token_id

    @property
    def end_tokens(self) -> frozenset[int]:
        """What ends an answer in generation: a base may end the sequence where it should end the turn."""
        return frozenset({self.end_token, self.tokenizer.eos_token_id})

    def _prompts(self, turns: Sequence[Turn], system: str) -> Iterator[str]:
        """What stands before each answer, after the end token of the answer before it."""
        for turn in turns:
            self._check_plain(turn.instruction + turn.context)
        self._check_plain(system)
        if self.template == CHAT:
            yield from self._chat_prompts(turns, system)
            return
        for number, turn in enumerate(turns):
            text = render(self.template, turn.instruction, turn.context, is_first=number == 0)
            yield f"{system}\n\n{text}" if system and number == 0 else text

    def _chat_prompts(self, turns: Sequence[Turn], system: str) -> Iterator[str]:
        messages = [{"role": "system", "content": system}] if system else []
        done = ""
        for turn in turns:
            messages.append(_user_turn(turn))
            text = self._chat(messages, add_generation_prompt=True)
            if not text.startswith(done):
                raise InvalidPromptError(
                    "the base's chat template rewrites earlier turns once there are more: use single-turn samples, or "
                    "another template"
                )
            yield text.removeprefix(done)
            messages.append({"role": "assistant", "content": turn.answer.strip()})
            done = text + self._closing.before + turn.answer.strip() + self._closing.after

    def _tokens_of_prompt(self, text: str, *, is_first: bool) -> list[int]:
        key = f"{is_first:d}{text}"
        if key not in self._known:
            if len(self._known) >= KNOWN_PROMPTS:
                self._known.clear()
            # A chat template wrote its own beginning of the sequence.
            beginning = self._beginning if is_first and self.template != CHAT else []
            self._known[key] = [*beginning, *self.tokenizer.encode(text, add_special_tokens=False)]
        tokens = self._known[key]
        if not tokens:
            raise InvalidPromptError("the prompt is empty: give an instruction")
        return list(tokens)

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
    def _closing(self) -> _Closing:
        turns = [_user_turn(Turn(instruction="a", answer="")), {"role": "assistant", "content": "b"}]
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
        end = self.tokenizer.convert_ids_to_tokens(ends[:1])[0]
        return _Closing(before=before, after=after[: after.index(end)] + end, token=ends[0])

    @cached_property
    def _specials(self) -> dict[str, int]:
        """Every special token: those with a role, and those that are only marked so, as Llama 3's ends of turns."""
        tokenizer = self.tokenizer
        marked = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        return marked | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._specials, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _check_plain(self, text: str) -> None:
        """A special token in a text would end the sample, or begin another turn."""
        if found := self._special_pattern.search(text):
            raise InvalidPromptError(
                f"the text holds {found[0]!r}, which the base's tokenizer takes for a token of its own: remove it"
            )

    @cached_property
    def _chat_template(self) -> str | None:
        """The tokenizer's template without its clock; None for the tokenizer's own way."""
        template = self.tokenizer.chat_template
        return SAME_DAY + template if isinstance(template, str) and "strftime_now" in template else None

    def _chat(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        if not self.tokenizer.chat_template:
            raise InvalidPromptError("the base's tokenizer has no chat template: choose template 'alpaca' or 'short'")
        try:
            text: str = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt, chat_template=self._chat_template
            )
        except TemplateError as error:
            raise InvalidPromptError(
                f"the base's chat template refuses the sample ({error}): choose template 'alpaca', or change the turns"
            ) from error
        return text


def _user_turn(turn: Turn) -> dict[str, str]:
    content = f"{turn.instruction}\n\n{turn.context}" if turn.context else turn.instruction
    return {"role": "user", "content": content}
