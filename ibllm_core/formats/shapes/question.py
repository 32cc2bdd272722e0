"""Questions about a picture with the answers of one or of several people, as VQA's sets publish them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ibllm_core.contract.marking import PeoplesAnswers
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Turn
from ibllm_core.formats.shapes.caption import read_reference
from ibllm_core.formats.shapes.markers import without_markers
from ibllm_core.formats.shapes.media import media_of
from ibllm_core.formats.shapes.turns import Reading
from ibllm_core.formats.shapes.values import filled_text, list_of, optional_text, required

MOST_COMMON = "multiple_choice_answer"  # VQA's name for the answer that most people gave
ANSWER_KEYS = ("answers", "answer", MOST_COMMON)


def read_question(row: Mapping[str, Any]) -> Reading:
    """``question`` and ``answers``, a list of texts or of objects with ``answer``; else the one ``answer``.

    The answer that most people gave is learnt, the first of several such; all of them are kept for marking.
    """
    media = media_of(row) or read_reference(row)
    question = filled_text(required(row, "question"), '"question"', "ask something")
    (question,) = without_markers([question], media, row)
    answers = _read_answers(row)
    chosen = next((row[key] for key in (MOST_COMMON, "answer") if row.get(key) is not None), None)
    if chosen is None and not answers:
        raise InvalidDataError('has no answer: add "answers" or "answer", or remove the row')
    if chosen is None:
        chosen = Counter(answers).most_common(1)[0][0]
    turn = Turn(
        instruction=filled_text(question, '"question"', "a marker alone is no question"),
        answer=filled_text(chosen, '"answer"', "write the answer that is to be learnt"),
        marking=PeoplesAnswers(answers=tuple(answers)) if len(answers) > 1 else None,
    )
    return (turn,), tuple(media), optional_text(row, "system")


def _read_answers(row: Mapping[str, Any]) -> list[str]:
    if row.get("answers") is None:
        return []
    texts = []
    for index, item in enumerate(list_of(row["answers"], '"answers"', '["a cat", "cat", ...]')):
        field = f"answers[{index}]"
        text, field = (item.get("answer"), f"{field}.answer") if isinstance(item, dict) else (item, field)
        texts.append(filled_text(text, field, "write what was answered, or remove it"))
    return texts
