"""Accuracy on multiple-choice questions, and ScienceQA's eight columns of it (Lu et al. 2022).

The answer is what the model writes, as in LLaVA's and ScienceQA's own evaluation; the likelihoods of the choices are
not compared. A text that names no choice is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ibllm_core.contract.marking import MultipleChoice

_NAMED = re.compile(r"(?i:\banswer is):? *\(?([A-Z])\b")
_LETTER = re.compile(r"\(?([A-Z])(?:\)|[.:]|$)")  # "B", "(B)", "B. west", but not "A cat"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A question, whether it shows media, and the index of the choice that was taken: None for none."""

    question: MultipleChoice
    has_media: bool
    chosen: int | None

    @property
    def is_right(self) -> bool:
        """Whether the choice is the right one."""
        return self.chosen == self.question.correct


def chosen(text: str, choices: Sequence[str]) -> int | None:
    """The choice that an answer names: by "the answer is B", by its letter alone or in front, or by its words alone."""
    text = text.strip()
    found = _NAMED.search(text) or _LETTER.match(text)
    if found:
        index = ord(found[1]) - ord("A")
        return index if index < len(choices) else None
    words = [_plain(choice) for choice in choices]
    return words.index(_plain(text)) if words.count(_plain(text)) == 1 else None


def accuracies(answered: Iterable[Answered]) -> dict[str, float]:
    """The share of right answers of each column that has questions: NAT to G7-12, and Avg over all questions."""
    answered = list(answered)
    found = {}
    for column, belongs in COLUMNS.items():
        mine = [answer.is_right for answer in answered if belongs(answer)]
        if mine:
            found[column] = sum(mine) / len(mine)
    return found


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _of_subject(name: str) -> Callable[[Answered], bool]:
    return lambda answer: answer.question.subject == name


COLUMNS: Mapping[str, Callable[[Answered], bool]] = {
    "NAT": _of_subject("natural science"),
    "SOC": _of_subject("social science"),
    "LAN": _of_subject("language science"),
    "TXT": lambda answer: answer.question.has_context,
    "IMG": lambda answer: answer.has_media,
    "NO": lambda answer: not answer.question.has_context and not answer.has_media,
    "G1-6": lambda answer: answer.question.grade is not None and answer.question.grade <= 6,
    "G7-12": lambda answer: answer.question.grade is not None and answer.question.grade > 6,
    "Avg": lambda answer: True,
}
