from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.evaluation.bleu import corpus_bleu
from tests.ibllm_core.evaluation.corpus import BLEU, CANDIDATES, REFERENCES

words = st.lists(st.sampled_from("abcd"), min_size=4, max_size=9)
corpora = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=5)


def test_bleu_is_that_of_cocos_own_tools() -> None:
    assert corpus_bleu(CANDIDATES, REFERENCES) == pytest.approx(BLEU, rel=1e-8)  # theirs adds 1e-15 for zeros


@given(corpora)
def test_perfect_captions_have_bleu_1(corpus: list[tuple[list[str], list[list[str]]]]) -> None:
    assert corpus_bleu([own[0] for _, own in corpus], [own for _, own in corpus]) == pytest.approx([1.0] * 4)


@given(corpora, st.randoms())
def test_the_order_of_pictures_and_of_references_changes_nothing(
    corpus: list[tuple[list[str], list[list[str]]]], chance: Random
) -> None:
    mixed = [(candidate, chance.sample(own, len(own))) for candidate, own in corpus]
    chance.shuffle(mixed)
    found, again = (corpus_bleu([c for c, _ in pairs], [own for _, own in pairs]) for pairs in (corpus, mixed))
    assert found == pytest.approx(again)
    assert all(0 <= value <= 1 for value in found)


def test_a_word_counts_as_often_as_one_reference_has_it() -> None:
    assert corpus_bleu([["the"] * 4], [[["the", "cat"], ["the", "the"]]])[0] == 0.5


def test_short_captions_pay_for_what_is_missing() -> None:
    assert corpus_bleu([["a", "cat"]], [[["a", "cat", "on", "mats"]]])[0] == pytest.approx(2.718281828 ** (1 - 4 / 2))


def test_no_words_are_worth_nothing() -> None:
    assert corpus_bleu([[]], [[["a", "cat"]]]) == [0.0] * 4


def test_a_caption_needs_a_reference() -> None:
    with pytest.raises(ValueError, match="no reference"):
        corpus_bleu([["a"]], [[]])
