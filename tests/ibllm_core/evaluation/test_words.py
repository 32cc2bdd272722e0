import pytest

from ibllm_core.evaluation.words import words_of


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A grey cat, on a mat.", "a grey cat on a mat"),
        ("The cat's asleep!", "the cat 's asleep"),
        ("A boy isn\u2019t wearing shoes", "a boy is n't wearing shoes"),
        ("It's raining; we've seen it", "it 's raining we 've seen it"),
        ('a well-known T-shirt -- "new" (red)', "a well-known t-shirt new red"),
        ("1,000 people in 3.5 rooms", "1,000 people in 3.5 rooms"),
        ("Café à côté", "café à côté"),
        ("一只猫 on カ", "一 只 猫 on カ"),
        ("...", ""),
    ],
)
def test_words_are_cocos(caption: str, words: str) -> None:
    assert words_of(caption) == words.split()
