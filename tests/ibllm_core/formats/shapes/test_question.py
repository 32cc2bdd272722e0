"""A picture, a question, and what one or several people answered."""

from __future__ import annotations

from typing import Any

import pytest

from ibllm_core.contract.marking import PeoplesAnswers
from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media, Turn
from ibllm_core.formats.shapes.question import read_question

ROW = {"image": "a.png", "question": "What colour is it?"}
IMAGE = (Media(modality=Modality.IMAGE, where="a.png"),)


def turn(answer: str, *people: str) -> Turn:
    marking = PeoplesAnswers(answers=people) if people else None
    return Turn(instruction="What colour is it?", answer=answer, marking=marking)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"answer": "red"}, turn("red")),
        ({"answers": ["red"]}, turn("red")),
        ({"answers": ["red", "dark red", "dark red"]}, turn("dark red", "red", "dark red", "dark red")),
        ({"answers": ["red", "pink"]}, turn("red", "red", "pink")),
        ({"answers": [{"answer": "red", "answer_id": 1}, {"answer": "pink"}]}, turn("red", "red", "pink")),
        ({"answers": ["red", "pink"], "multiple_choice_answer": "pink"}, turn("pink", "red", "pink")),
    ],
)
def test_the_commonest_answer_is_learnt_and_all_are_kept(answers: dict[str, Any], expected: Turn) -> None:
    assert read_question({**ROW, **answers}) == ((expected,), IMAGE, "")


def test_the_marker_of_the_picture_is_taken_out() -> None:
    row = {"file_name": "a.png", "question": "<image>\nWhat colour is it?", "answer": "red"}
    assert read_question(row) == ((turn("red"),), IMAGE, "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, 'has no answer: add "answers" or "answer"'),
        ({"answers": []}, "has no answer"),
        ({"answers": "red"}, '"answers" is text, not a list'),
        ({"answers": ["red", ""]}, r"answers\[1\] is empty"),
        ({"answers": [{"text": "red"}]}, r"answers\[0\].answer is missing or null, not text"),
        ({"answer": ""}, '"answer" is empty'),
        ({"answer": "red", "question": None}, 'has no "question"'),
        ({"answer": "red", "question": "<image>"}, '"question" is empty: a marker alone is no question'),
    ],
)
def test_a_bad_row_says_what_is_wrong(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        read_question({**ROW, **change})
