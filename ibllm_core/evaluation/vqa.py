"""Accuracy of answers to questions about pictures: VQA's own (Antol et al. 2015), and equality for a single answer.

Several people answered each question of VQA. An answer is as right as three of them say it, ``min(n / 3, 1)``, where
``n`` of the others gave it, the mean over leaving each person out in turn (https://visualqa.org/evaluation.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

NEEDED = 3  # people who have to agree with an answer
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ARTICLES = frozenset({"a", "an", "the"})
# Words with apostrophes, which people leave out.
CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """How right an answer is, between 0 and 1, by the answers of at least two people; all normalised."""
    given = normalise(answer)
    agree = [normalise(other) == given for other in people]
    total = sum(agree)
    return sum(min((total - mine) / NEEDED, 1.0) for mine in agree) / len(agree)


def equals(answer: str, truth: str) -> bool:
    """Whether an answer is the truth but for case and outer space."""
    return answer.strip().lower() == truth.strip().lower()


def normalise(answer: str) -> str:
    """An answer as VQA compares it: without punctuation and articles, numbers as digits, apostrophes restored."""
    words = _without_punctuation(" ".join(answer.split())).lower().split()
    return " ".join(_WRITTEN.get(word, word) for word in words if word not in ARTICLES)


def _without_punctuation(text: str) -> str:
    """A sign between two words becomes a space; beside one, or in a text with a number such as 1,000, it goes."""
    has_number = bool(_COMMA_IN_NUMBER.search(text))
    found = text
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        found = found.replace(sign, "" if beside_space or has_number else " ")
    return _FULL_STOP.sub("", found)


def _spellings(word: str) -> Iterator[str]:
    """A word with one of its apostrophes left out."""
    return (word[: mark.start()] + word[mark.end() :] for mark in re.finditer("'", word))


_WRITTEN = {
    **{spelling: word for word in CONTRACTED.split() for spelling in _spellings(word)},
    **{word: str(number) for number, word in enumerate(NUMBERS)},
    "none": "0",
}
