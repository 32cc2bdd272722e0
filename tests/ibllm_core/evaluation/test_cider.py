import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.evaluation.cider import cider_d
from ibllm_core.evaluation.words import words_of
from tests.ibllm_core.evaluation.corpus import CANDIDATES, CIDER, REFERENCES

words = st.lists(st.sampled_from("abcd"), max_size=9)
corpora = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=5)


def test_cider_is_that_of_cocos_own_tools() -> None:
    assert cider_d(CANDIDATES, REFERENCES) == pytest.approx(CIDER, rel=1e-9)


def test_identical_captions_of_different_pictures_have_the_highest_score() -> None:
    captions = [words_of(text) for text in ("a cat on the mat", "two dogs in deep snow", "one man rides his bike")]
    assert cider_d(captions, [[caption] for caption in captions]) == pytest.approx([10.0] * 3)


@given(corpora, st.permutations(range(5)))
def test_the_order_of_pictures_changes_nothing(
    corpus: list[tuple[list[str], list[list[str]]]], order: list[int]
) -> None:
    order = [number for number in order if number < len(corpus)]
    found = cider_d([c for c, _ in corpus], [own for _, own in corpus])
    mixed = cider_d([corpus[i][0] for i in order], [corpus[i][1][::-1] for i in order])
    assert mixed == pytest.approx([found[i] for i in order])
    assert all(0 <= value <= 10 + 1e-9 for value in found)


def test_words_that_every_picture_has_say_nothing() -> None:
    references = [[words_of("a cat")], [words_of("a dog")]]
    alone, with_cat = cider_d([["a"], ["a"]], references)[0], cider_d([["cat"], ["a"]], references)[0]
    assert alone == 0 < with_cat


def test_one_picture_alone_scores_nothing() -> None:
    assert cider_d([["a", "cat"]], [[["a", "cat"]]]) == [0.0]


def test_a_caption_of_another_length_scores_less() -> None:
    references = [[words_of("a grey cat sleeps")], [words_of("two dogs run")]]
    short, long = (words_of("a grey cat sleeps"), words_of("a grey cat sleeps a grey cat sleeps"))
    assert cider_d([long, []], references)[0] < cider_d([short, []], references)[0]


def test_a_caption_needs_a_reference() -> None:
    with pytest.raises(ValueError, match="no reference"):
        cider_d([["a"]], [[]])
