"""Prompt templates by name."""

from __future__ import annotations

from dataclasses import dataclass

from ibllm_core.errors import InvalidPromptError, InvalidSpecError

CAPTION_INSTRUCTION = "Generate caption of this image"  # the released code's constant
CHAT = "chat"  # the base's own chat template, which only its tokenizer knows

_ALPACA_TASK = "Below is an instruction that describes a task"
_ALPACA_WISH = "Write a response that appropriately completes the request."


@dataclass(frozen=True, kw_only=True)
class Template:
    """A prompt with its places for ``{instruction}`` and, where a sample has one, ``{input}``."""

    text: str
    text_with_input: str | None = None
    # How a later turn of the same conversation begins; None where there can be only one.
    next_text: str | None = None
    next_text_with_input: str | None = None


TEMPLATES: dict[str, Template] = {
    # The two of Alpaca, which the paper uses; which of them is a matter of the sample.
    "alpaca": Template(
        text=f"{_ALPACA_TASK}. {_ALPACA_WISH}\n\n### Instruction:\n{{instruction}}\n\n### Response:",
        text_with_input=(
            f"{_ALPACA_TASK}, paired with an input that provides further context. {_ALPACA_WISH}"
            "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
        ),
        next_text="\n\n### Instruction:\n{instruction}\n\n### Response:",
        next_text_with_input="\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
    ),
    # A quarter of Alpaca's tokens.
    "short": Template(
        text="Question: {instruction}\nAnswer:",
        text_with_input="{input}\nQuestion: {instruction}\nAnswer:",
        next_text="\nQuestion: {instruction}\nAnswer:",
        next_text_with_input="\n{input}\nQuestion: {instruction}\nAnswer:",
    ),
    # Stage 1's constant prompt: whatever a sample asks for, it is a caption.
    "caption": Template(
        text=f"{_ALPACA_TASK}. {_ALPACA_WISH}\n\n### Instruction:\n{CAPTION_INSTRUCTION}\n\n### Response:"
    ),
}
TEMPLATE_NAMES = (*TEMPLATES, CHAT)


def render(name: str, instruction: str, context: str = "", *, is_first: bool = True) -> str:
    """The prompt of a turn, from its instruction and input; errors name the template and the remedy.

    ``InvalidSpecError`` for a template that does not exist, ``InvalidPromptError`` where it cannot hold what is given.
    """
    if name not in TEMPLATES:
        raise InvalidSpecError(f"there is no template {name!r}; choose one of {', '.join(TEMPLATE_NAMES)}")
    if name == "caption" and instruction not in ("", CAPTION_INSTRUCTION):
        raise InvalidPromptError(
            f"template 'caption' always asks {CAPTION_INSTRUCTION!r}, and has no place for {instruction[:60]!r}: "
            "leave the instruction empty, or choose template 'alpaca'"
        )
    template = TEMPLATES[name]
    plain, with_input = (
        (template.text, template.text_with_input) if is_first else (template.next_text, template.next_text_with_input)
    )
    if plain is None:
        raise InvalidPromptError(f"template {name!r} has room for one turn only: choose template 'alpaca'")
    if not context:
        return plain.replace("{instruction}", instruction)
    if with_input is None:
        raise InvalidPromptError(f"template {name!r} has no place for an input: choose template 'alpaca'")
    # Both places at once: an instruction that talks of "{input}" is left as it is.
    before, after = with_input.split("{instruction}")
    return before.replace("{input}", context) + instruction + after.replace("{input}", context)
