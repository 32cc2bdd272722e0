"""A file's name is its user's word, and no place."""

from __future__ import annotations

import pytest

from orchestrator.errors import InvalidRequestError
from orchestrator.files.names import clean_name, disposition


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a\0b\r\n.jsonl", "ab.jsonl"),
        ("\u202ea.jsonl", "a.jsonl"),
        ("\ud800.jsonl", ".jsonl"),
        ("C:\\data\\a b.jsonl", "a b.jsonl"),
        ("../..", "upload.jsonl"),
        ("", "upload.jsonl"),
        ("ä" * 255, "ä" * 255),
    ],
)
def test_a_name_has_neither_folders_nor_what_cannot_be_shown(given: str, kept: str) -> None:
    assert clean_name(given, param="file") == kept


def test_a_name_of_512_characters_is_too_long() -> None:
    with pytest.raises(InvalidRequestError, match="has 512 characters, at most 255 are kept: shorten it") as refused:
        clean_name("x" * 512, param="filename")
    assert refused.value.param == "filename"


def test_a_header_holds_any_name_in_ascii() -> None:
    assert disposition("a.jsonl") == 'attachment; filename="a.jsonl"'
    assert disposition('é"\\;.jsonl') == "attachment; filename*=utf-8''%C3%A9%22%5C%3B.jsonl"
