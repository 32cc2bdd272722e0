"""A LLaMA of SmolLM2-135M's shape with random weights, and captions for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.data.dataset import CompiledSample, Dataset
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for

FEATURE_DIM = 1024  # ImageBind's
VOCAB = 49152


def stage1_model(dtype: torch.dtype, *, num_layers: int = 30, **config: Any) -> ImageBindLLM:
    model = ImageBindLLM(plain_llama(dtype, num_layers=num_layers), FEATURE_DIM, AdapterConfig.model_validate(config))
    freeze_for("stage1", model)
    return model


def plain_llama(dtype: torch.dtype, *, num_layers: int = 30) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=num_layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(dtype).requires_grad_(False).eval()


def captions(count: int, lengths: tuple[int, int] = (10, 40), prompt_length: int = 8) -> Dataset:
    """Samples with media, as long as stamps' captions under the short template unless told."""
    rng = np.random.default_rng(0)
    samples = [
        CompiledSample(
            tokens=rng.integers(1, VOCAB, length).tolist(),
            labels=[(prompt_length, length)],
            feature=index,
            row=index + 1,
            instruction="",
            answer="",
        )
        for index, length in enumerate(rng.integers(lengths[0], lengths[1] + 1, count).tolist())
    ]
    features = rng.standard_normal((count, FEATURE_DIM)).astype(np.float32)
    return Dataset.of(samples, features, [str(index) for index in range(count)])
