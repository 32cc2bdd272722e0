"""Multiple-choice questions as ScienceQA's rows have them, with or without a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from ibllm_core.contract.marking import MultipleChoice
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Turn
from ibllm_core.formats.shapes.caption import read_reference
from ibllm_core.formats.shapes.media import media_of
from ibllm_core.formats.shapes.turns import Reading
from ibllm_core.formats.shapes.values import filled_text, kind_of, list_of, optional_text, required

_GRADE = re.compile(r"(?:grade ?)?([1-9]|1[0-2])")


def read_choice(row: Mapping[str, Any]) -> Reading:
    """``question``, ``hint``, ``choices`` and the index ``answer`` from 0, asked as ScienceQA's authors ask them.

    ``subject`` and ``grade`` are kept for the columns of an evaluation; lecture and solution are not asked for.
    """
    question = filled_text(required(row, "question"), '"question"', "ask something")
    hint = optional_text(row, "hint").strip()
    choices = _read_choices(row)
    correct = _read_answer(row, len(choices))
    options = " ".join(f"({ascii_uppercase[i]}) {choice}" for i, choice in enumerate(choices))
    turn = Turn(
        instruction=f"Question: {question.strip()}\nContext: {hint or 'N/A'}\nOptions: {options}",
        answer=f"The answer is {ascii_uppercase[correct]}.",
        marking=MultipleChoice(
            choices=choices,
            correct=correct,
            subject=optional_text(row, "subject") or None,
            grade=_read_grade(row),
            has_context=bool(hint),
        ),
    )
    return (turn,), tuple(media_of(row) or read_reference(row)), ""


def _read_choices(row: Mapping[str, Any]) -> tuple[str, ...]:
    choices = list_of(required(row, "choices"), '"choices"', '["west", "east", ...]')
    if not 2 <= len(choices) <= len(ascii_uppercase):
        raise InvalidDataError(f'"choices" has {len(choices)} texts: write between 2 and {len(ascii_uppercase)}')
    return tuple(filled_text(choice, f"choices[{i}]", "write the choice").strip() for i, choice in enumerate(choices))


def _read_answer(row: Mapping[str, Any], num_choices: int) -> int:
    answer = required(row, "answer")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise InvalidDataError(f'"answer" is {kind_of(answer)}, not the index of the right choice: count from 0')
    if not 0 <= answer < num_choices:
        raise InvalidDataError(f'"answer" is {answer}, but the choices are 0 to {num_choices - 1}: count from 0')
    return answer


def _read_grade(row: Mapping[str, Any]) -> int | None:
    text = optional_text(row, "grade").strip()
    if not text:
        return None
    found = _GRADE.fullmatch(text)
    if not found:
        raise InvalidDataError(f'"grade" is {text[:40]!r}: write "grade1" to "grade12", or leave it out')
    return int(found[1])
