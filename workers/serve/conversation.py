"""A chat request as the turns that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ibllm_core.contract.chat import DEFAULT_MAX_TOKENS, ChatMessage, ChatRequest
from ibllm_core.errors import InvalidPromptError
from ibllm_core.formats.sample import Turn
from ibllm_core.prompts import Prompter, Tokenizer

ANY_ANSWER = "a"


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What was said, of which the last turn has no answer yet."""

    turns: tuple[Turn, ...]
    system: str


def conversation_of(request: ChatRequest) -> Conversation:
    """Pair questions with answers; neighbours of one role are joined, a line each."""
    joined = _joined(request.messages)
    system = joined.pop(0)[1] if joined[0][0] == "system" else ""
    texts = [text for _, text in joined]
    questions, answers = texts[::2], [*texts[1::2], ANY_ANSWER]
    return Conversation(
        turns=tuple(Turn(instruction=q, answer=a) for q, a in zip(questions, answers, strict=True)), system=system
    )


def prompt_tokens(conversation: Conversation, tokenizer: Tokenizer, template: str) -> list[int]:
    """Tokens up to the answer that is due, as training saw them; ``InvalidPromptError`` where nothing is asked.

    The prompter is made anew, since one remembers its prompts: right for a data set, a leak in a server.
    """
    _check_asked(conversation, template)
    sample = Prompter(tokenizer=tokenizer, template=template).sample(conversation.turns, system=conversation.system)
    due, _ = sample.labels[-1]
    return sample.tokens[:due]


def answer_limit(request: ChatRequest, num_positions: int, context: int) -> int:
    """How many tokens the answer may have behind a prompt; ``InvalidPromptError`` where they do not fit."""
    room = context - num_positions
    wanted = request.token_limit or max(1, min(DEFAULT_MAX_TOKENS, room))
    if wanted > room:
        raise InvalidPromptError(
            f"the messages have {num_positions} tokens and the answer may have {wanted}, but the model's context is "
            f"{context}: shorten the messages or lower max_tokens",
            code="context_length_exceeded",
        )
    return wanted


def _joined(messages: Sequence[ChatMessage]) -> list[tuple[str, str]]:
    joined: list[tuple[str, str]] = []
    for message in messages:
        speaker, text = message.speaker, message.text
        if joined and joined[-1][0] == speaker:
            text = "\n".join(part for part in (joined.pop()[1], text) if part)
        joined.append((speaker, text))
    return joined


def _check_asked(conversation: Conversation, template: str) -> None:
    if template == "caption":
        return
    if any(not turn.instruction.strip() for turn in conversation.turns):
        raise InvalidPromptError("a user's message has no text, and a medium alone is no question: ask something")
