"""Captions as words, by the rule of COCO's captions: lower case, punctuation removed (Chen et al. 2015, section 3.1).

COCO takes Penn Treebank's tokenizer, which needs Java; of it this follows what captions show. Clitics are words
("don't" is "do", "n't"), hyphens stay inside words, and so do a number's point and commas. Han and kana, which nobody
writes apart, are a word each.
"""

from __future__ import annotations

import re

_HAN_AND_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"(?:(?![{_HAN_AND_KANA}])[^\W_])"
_WORD = re.compile(
    rf"""
    [{_HAN_AND_KANA}]
    | n't\b
    | '(?:s|m|d|re|ve|ll)\b
    | \d+(?:[.,]\d+)+
    | {_LETTER}+?(?=n't\b)
    | {_LETTER}+(?:-{_LETTER}+)*
    """,
    re.VERBOSE,
)


def words_of(text: str) -> list[str]:
    """The words of a caption, none for a text without any."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))
