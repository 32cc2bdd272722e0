"""Golden texts: ``VQAEval`` of ``salesforce-lavis`` 1.0.2, which is VQA's own script; 20,000 random ones agreed too."""

import pytest

from ibllm_core.evaluation.vqa import equals, normalise, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("The red car.", "red car"),
        ("two", "2"),
        ("Ten o'clock", "10 o'clock"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("wouldnt've", "wouldn't've"),
        ("youre right", "you're right"),
        ("t-shirt", "t shirt"),
        ("black/white", "black white"),
        ("1,000 people", "1000 people"),
        ("a cat, a dog", "cat dog"),
        ("$5.50", "$5.50"),
        ("U.S.A", "usa"),
        ("red ?", "red"),
        ("hot-dog , bun", "hot dog bun"),
        ("\nYes\t", "yes"),
        ("10:30", "10:30"),
    ],
)
def test_answers_are_normalised_as_vqa_does_it(answer: str, normalised: str) -> None:
    assert normalise(answer) == normalised


@pytest.mark.parametrize(("agreeing", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_an_answer_is_as_right_as_three_of_ten_people_say_it(agreeing: int, accuracy: float) -> None:
    people = ["Two."] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
    assert vqa_accuracy("2", people) == pytest.approx(accuracy)
    assert vqa_accuracy("two", people[::-1]) == pytest.approx(accuracy)


def test_a_single_answer_is_right_when_it_is_the_whole_truth() -> None:
    assert [equals(answer, "cat") for answer in ("Cat ", "catfish", "a cat")] == [True, False, False]
