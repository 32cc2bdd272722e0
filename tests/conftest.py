"""What several tests need: a tiny LLaMA of the real class, and datasets made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.model.imagebind_llm import ImageBindLLM

FEATURE_DIM = 12
PAD = 0


TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}


def tiny_llama(**changes: Any) -> LlamaForCausalLM:
    """Two layers with grouped queries, random but always the same."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**TINY, **changes})).requires_grad_(False).eval()


@pytest.fixture
def model() -> ImageBindLLM:
    """A stage-1 model with closed gates."""
    llama = tiny_llama()
    torch.manual_seed(1)
    return ImageBindLLM(llama, FEATURE_DIM)


@pytest.fixture
def open_model(model: ImageBindLLM) -> ImageBindLLM:
    """The same with gates that differ from layer to layer."""
    with torch.no_grad():
        model.fusion.gates.copy_(torch.tensor([[0.5], [-0.3]]))
    return model


def sample(tokens: list[int], prompt_length: int, feature: int) -> CompiledSample:
    return CompiledSample(
        tokens=tokens,
        labels=[(prompt_length, len(tokens))],
        feature=feature,
        row=1,
        instruction="what?",
        answer="that",
    )


@pytest.fixture
def dataset() -> Dataset:
    """Three samples with pictures and one without."""
    rng = np.random.default_rng(0)
    samples = [
        sample([5, 6, 7, 8, 9], 2, 0),
        sample([10, 11, 12], 1, 1),
        sample([20, 21, 22, 23], 3, NO_FEATURE),
        sample([30, 31, 32, 33, 34, 35], 2, 2),
    ]
    features = rng.standard_normal((3, FEATURE_DIM)).astype(np.float32)
    return Dataset.of(samples, features, ["a", "b", "c"])


WORDS = [
    "what",
    "is",
    "this",
    "?",
    "a",
    "cat",
    "dog",
    ".",
    "on",
    "the",
    "mat",
    "red",
    "stop",
    "Question",
    "Answer",
    ":",
]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words of a few, without a beginning of sequence."""
    model = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2, **{w: 3 + i for i, w in enumerate(WORDS)}}, "<unk>"))
    model.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
