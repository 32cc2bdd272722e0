"""ScienceQA's rows, as Hugging Face has them."""

from __future__ import annotations

from typing import Any

import pytest

from ibllm_core.contract.marking import MultipleChoice
from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media, Turn
from ibllm_core.formats.shapes.choice import read_choice

ROW: dict[str, Any] = {
    "image": {"bytes": b"\x89PNG\r\n\x1a\n", "path": None},
    "question": "Which way does the river run?",
    "choices": ["west", "east", "both"],
    "answer": 1,
    "hint": "The map shows a valley. ",
    "task": "closed choice",
    "grade": "grade7",
    "subject": "social science",
    "topic": "geography",
    "category": "Maps",
    "skill": "Read a map",
    "lecture": "A map is a drawing.",
    "solution": "Look at the arrow.",
}


def test_a_published_row_becomes_the_fields_usual_prompt() -> None:
    turns, media, system = read_choice(ROW)
    assert turns == (
        Turn(
            instruction=(
                "Question: Which way does the river run?\nContext: The map shows a valley.\n"
                "Options: (A) west (B) east (C) both"
            ),
            answer="The answer is B.",
            marking=MultipleChoice(
                choices=("west", "east", "both"), correct=1, subject="social science", grade=7, has_context=True
            ),
        ),
    )
    assert media == (Media(modality=Modality.IMAGE, content=b"\x89PNG\r\n\x1a\n"),)
    assert system == ""


def test_without_picture_hint_subject_and_grade() -> None:
    turns, media, _ = read_choice({"question": "Which?", "choices": ["a", "b"], "answer": 0, "image": None, "hint": ""})
    assert turns[0].instruction == "Question: Which?\nContext: N/A\nOptions: (A) a (B) b"
    assert turns[0].marking == MultipleChoice(choices=("a", "b"), correct=0, has_context=False)
    assert media == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": 3}, '"answer" is 3, but the choices are 0 to 2'),
        ({"answer": -1}, '"answer" is -1'),
        ({"answer": "B"}, '"answer" is text, not the index of the right choice'),
        ({"answer": True}, '"answer" is true or false'),
        ({"choices": ["west"]}, '"choices" has 1 texts: write between 2 and 26'),
        ({"choices": "west"}, '"choices" is text, not a list'),
        ({"choices": ["west", " "]}, r"choices\[1\] is empty"),
        ({"grade": "grade13"}, "\"grade\" is 'grade13'"),
        ({"question": None}, 'has no "question"'),
    ],
)
def test_a_bad_row_says_what_is_wrong(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        read_choice({**ROW, **change})
