"""Alpaca's rows, with what LLaMA-Factory adds."""

from __future__ import annotations

from typing import Any

import pytest

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media, Turn
from ibllm_core.formats.shapes.alpaca import read_alpaca

ROW = {"instruction": "Describe it.", "input": "", "output": "A cat."}


def test_history_and_system_and_pictures() -> None:
    row = ROW | {
        "instruction": "<image>And what colour?",
        "input": "in a word",
        "history": [["What is it?<image>", "A cat."]],
        "system": "Be brief.",
        "images": ["a.png", "b.png"],
    }
    assert read_alpaca(row) == (
        (
            Turn(instruction="What is it?", answer="A cat."),
            Turn(instruction="And what colour?", context="in a word", answer="A cat."),
        ),
        (Media(modality=Modality.IMAGE, where="a.png"), Media(modality=Modality.IMAGE, where="b.png")),
        "Be brief.",
    )


@pytest.mark.parametrize("missing", [{"input": None}, {"history": None}, {"system": None}, {"image": None}])
def test_what_is_null_is_not_there(missing: dict[str, Any]) -> None:
    assert read_alpaca(ROW | missing) == read_alpaca(ROW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"output": None}, 'no "output"'),
        ({"output": " "}, '"output" is empty'),
        ({"output": 42}, '"output" is a number, not text'),
        ({"output": True}, '"output" is true or false, not text'),
        ({"instruction": ["a"]}, '"instruction" is a list, not text'),
        ({"instruction": " "}, '"instruction" is empty'),
        ({"instruction": "<image>", "image": "a.png"}, "a marker alone is no question"),
        ({"input": 1.5}, '"input" is a number, not text'),
        ({"input": "<image>"}, "<image> 1 times, the row has 0"),
        ({"history": "x"}, '"history" is text, not a list'),
        ({"history": [["x"]]}, r"history\[0\] has 1 texts"),
        ({"history": [["x", ""]]}, r"history\[0\]\[1\] is empty"),
        ({"system": {}}, '"system" is an object, not text'),
    ],
)
def test_a_bad_row_says_what_is_wrong(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        read_alpaca(ROW | change)
