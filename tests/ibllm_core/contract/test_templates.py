import pytest

from ibllm_core.contract.templates import CAPTION_INSTRUCTION, render
from ibllm_core.errors import InvalidPromptError, InvalidSpecError


def test_alpaca_has_a_form_with_and_without_input() -> None:
    plain = render("alpaca", "Name three colours.")
    assert plain.endswith("### Instruction:\nName three colours.\n\n### Response:")
    assert "Input" not in plain
    with_input = render("alpaca", "Translate.", "Guten Tag")
    assert with_input.endswith("### Instruction:\nTranslate.\n\n### Input:\nGuten Tag\n\n### Response:")
    assert "paired with an input" in with_input


def test_braces_in_a_text_are_left_alone() -> None:
    assert "say {input} and {x}" in render("alpaca", "say {input} and {x}", "{instruction}")
    assert "\n{instruction}\n" in render("alpaca", "say {input} and {x}", "{instruction}")


def test_caption_always_asks_the_same() -> None:
    assert render("caption", "") == render("caption", CAPTION_INSTRUCTION) == render("alpaca", CAPTION_INSTRUCTION)
    with pytest.raises(InvalidPromptError, match=r"no place for 'What is it\?'.*alpaca"):
        render("caption", "What is it?")
    with pytest.raises(InvalidPromptError, match="no place for an input"):
        render("caption", "", "something")


def test_an_unknown_template_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSpecError, match="'vicuna'; choose one of alpaca, short, caption, chat"):
        render("vicuna", "a")


def test_the_words_are_alpacas_and_the_released_codes() -> None:
    """A letter more or less is another model's prompt."""
    task = "Below is an instruction that describes a task"
    wish = "Write a response that appropriately completes the request."
    assert render("alpaca", "A") == f"{task}. {wish}\n\n### Instruction:\nA\n\n### Response:"
    assert render("alpaca", "A", "B") == (
        f"{task}, paired with an input that provides further context. {wish}"
        "\n\n### Instruction:\nA\n\n### Input:\nB\n\n### Response:"
    )
    assert CAPTION_INSTRUCTION == "Generate caption of this image"
