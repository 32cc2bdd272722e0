"""Alpaca's rows: ``instruction``, ``input``, ``output``; LLaMA-Factory adds ``history``, ``system`` and media."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Turn
from ibllm_core.formats.shapes.markers import without_markers
from ibllm_core.formats.shapes.media import media_of
from ibllm_core.formats.shapes.turns import Reading
from ibllm_core.formats.shapes.values import filled_text, list_of, optional_text, required


def read_alpaca(row: Mapping[str, Any]) -> Reading:
    """The turns of ``history``, then the row's own, whose context is ``input``."""
    media = media_of(row)
    instruction = filled_text(required(row, "instruction"), '"instruction"', "write what is to be done")
    answer = filled_text(required(row, "output"), '"output"', "write the answer that is to be learnt")
    past = _read_history(row.get("history"))
    texts = [question for question, _ in past] + [instruction, optional_text(row, "input")]
    *questions, context = without_markers(texts, media, row)
    answers = [answer for _, answer in past] + [answer]
    contexts = [""] * len(past) + [context]
    turns = tuple(
        Turn(
            instruction=filled_text(question, '"instruction"', "a marker alone is no question"),
            answer=answer,
            context=context,
        )
        for question, answer, context in zip(questions, answers, contexts, strict=True)
    )
    return turns, tuple(media), optional_text(row, "system")


def _read_history(value: object) -> list[tuple[str, str]]:
    if value is None:
        return []
    pairs: list[tuple[str, str]] = []
    for index, pair in enumerate(list_of(value, '"history"', '[["question", "answer"], ...]')):
        field = f"history[{index}]"
        if len(list_of(pair, field, '["question", "answer"]')) != 2:
            raise InvalidDataError(f'{field} has {len(pair)} texts: write ["question", "answer"]')
        question, answer = (filled_text(text, f"{field}[{i}]", "write some text") for i, text in enumerate(pair))
        pairs.append((question, answer))
    return pairs
