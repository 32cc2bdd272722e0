import pytest

from ibllm_core.contract.marking import MultipleChoice
from ibllm_core.evaluation.science_qa import Answered, accuracies, chosen

CHOICES = ("west", "east", "Both.")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("The answer is B.", 1),
        ("the answer is (C)", 2),
        ("Because it is so. The answer is: A", 0),
        ("B", 1),
        ("(B)", 1),
        ("B. east", 1),
        ("C: both", 2),
        ("East", 1),
        ("both", 2),
        ("The answer is D.", None),
        ("The answer is a cat.", None),
        ("A cat", None),
        ("Because", None),
        ("north", None),
        ("", None),
    ],
)
def test_the_choice_that_a_text_names(text: str, index: int | None) -> None:
    assert chosen(text, CHOICES) == index


def test_two_equal_choices_are_not_told_apart_by_their_words() -> None:
    assert chosen("west", ("west", "West", "east")) is None


def answered(subject: str | None, grade: int | None, *, context: bool, media: bool, right: bool) -> Answered:
    question = MultipleChoice(choices=CHOICES, correct=1, subject=subject, grade=grade, has_context=context)
    return Answered(question=question, has_media=media, chosen=1 if right else None)


def test_the_columns_are_those_of_the_papers() -> None:
    table = accuracies(
        [
            answered("natural science", 2, context=True, media=True, right=True),
            answered("natural science", 8, context=False, media=True, right=False),
            answered("social science", 6, context=False, media=False, right=True),
            answered("language science", 7, context=True, media=False, right=False),
        ]
    )
    expected = {
        "NAT": 1 / 2,
        "SOC": 1,
        "LAN": 0,
        "TXT": 1 / 2,
        "IMG": 1 / 2,
        "NO": 1,
        "G1-6": 1,
        "G7-12": 0,
        "Avg": 1 / 2,
    }
    assert table == expected


def test_columns_without_questions_are_left_out() -> None:
    assert accuracies([answered(None, None, context=True, media=False, right=True)]) == {"TXT": 1.0, "Avg": 1.0}
    assert accuracies([]) == {}
