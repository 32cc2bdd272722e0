from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ibllm_core.bases.tokenizer import sentencepiece_tokenizer
from tests.ibllm_core.bases.files import write_pieces

Pair = tuple[SentencePieceProcessor, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    file = write_pieces(tmp_path_factory.mktemp("pieces"))
    return SentencePieceProcessor(model_file=str(file)), sentencepiece_tokenizer(file)


# No angle brackets: "<s>" in a text is the special token to transformers and three letters to SentencePiece.
@given(text=st.text(alphabet=st.characters(exclude_characters="<>", exclude_categories=("Cs",)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_ids_are_bos_and_those_of_sentencepiece(pair: Pair, text: str) -> None:
    pieces, tokenizer = pair
    if "\0" not in text:  # SentencePiece's own interface ends a text there
        assert tokenizer(text)["input_ids"] == [1, *pieces.encode(text)]


def test_a_text_survives_the_way_there_and_back(pair: Pair) -> None:
    text = "the cat  on a mat?\n café 日本"
    assert pair[1].decode(pair[1](text)["input_ids"], skip_special_tokens=True) == text


def test_a_saved_tokenizer_gives_the_same_ids(pair: Pair, tmp_path: Path) -> None:
    pair[1].save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the cat", "  the cat ", " ", "a\n b"):
        assert again(text)["input_ids"] == pair[1](text)["input_ids"]
    assert (again.bos_token_id, again.eos_token_id, again.unk_token_id) == (1, 2, 0)
