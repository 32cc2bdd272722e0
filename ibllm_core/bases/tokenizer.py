"""Meta's ``tokenizer.model`` as a fast tokenizer that agrees with SentencePiece to the id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import normalizers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ibllm_core.bases.translate import translated_tokenizer
from ibllm_core.errors import InvalidWeightsError

BPE = 2  # TrainerSpec.ModelType of sentencepiece_model.proto
# Leading, doubled and trailing spaces, line ends, tabs, bytes outside the vocabulary, digits, nothing.
PROBES = ("What is it?", "  two  spaces ", "a\n\n b\tc", "Größe 日本 🙂", "1234 5.6", "▁x", "")


def sentencepiece_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """Build the fast tokenizer of a SentencePiece model; BOS comes first, ids equal SentencePiece's own.

    Raises ``InvalidWeightsError`` where the file is missing or no SentencePiece BPE model, such as Llama 3's.
    """
    pieces = _read_pieces(file)
    with translated_tokenizer(file):
        llama = LlamaTokenizer.from_pretrained(file.parent, add_bos_token=True, add_eos_token=False)
    backend = llama.backend_tokenizer
    # transformers' LlamaTokenizer puts no space before text that begins with one; SentencePiece always does.
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=llama.bos_token, eos_token=llama.eos_token, unk_token=llama.unk_token
    )
    if any(tokenizer(probe)["input_ids"] != [pieces.bos_id(), *pieces.encode(probe)] for probe in PROBES):
        raise _unlike_llama(file)
    return tokenizer


def _read_pieces(file: Path) -> SentencePieceProcessor:
    if not file.exists():
        raise InvalidWeightsError(
            f"{file} is missing: put Meta's tokenizer.model beside the weights (it lies one folder above them in "
            "Meta's download)",
            file=str(file),
            expected="tokenizer.model",
        )
    try:
        pieces = SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError) as error:
        raise InvalidWeightsError(
            f"{file} is no SentencePiece model (Llama 3 has a tiktoken file of the same name): give the base as a "
            "Hugging Face folder, which carries tokenizer.json",
            file=str(file),
            expected="a SentencePiece model",
        ) from error
    model: Any = proto.ModelProto.FromString(file.read_bytes())  # type: ignore[attr-defined]
    if model.trainer_spec.model_type != BPE:
        raise _unlike_llama(file)
    return pieces


def _unlike_llama(file: Path) -> InvalidWeightsError:
    return InvalidWeightsError(
        f"{file} is a SentencePiece model whose ids transformers does not reproduce; expected BPE with byte fallback "
        "and no normalisation, as LLaMA 1 and 2 have it: give the base as a Hugging Face folder",
        file=str(file),
        expected="LLaMA's SentencePiece model",
    )
