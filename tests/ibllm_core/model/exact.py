"""Models in float64 from end to end, and the same weights as the plain implementation wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ibllm_core.contract.adapter_config import AdapterConfig, AdapterPrefixConfig
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import NO_FEATURE, Dataset
from ibllm_core.model.batch import Batch
from ibllm_core.model.imagebind_llm import ImageBindLLM
from tests.conftest import FEATURE_DIM, PAD, sample, tiny_llama
from tests.reference import plain

FUSIONS: tuple[Any, ...] = (
    "token_add",
    "value_gate",
    {"kind": "adapter_prefix", "prompts": 3},
    {"kind": "concat", "tokens": 2},
)
Sample = tuple[list[int], int, Tensor | None]


class ExactRotary(nn.Module):
    """Rotary tables in float64: transformers makes them in float32, whatever the model's dtype."""

    def __init__(self, frequencies: Sequence[float]) -> None:
        super().__init__()
        self.frequencies = torch.tensor(frequencies, dtype=torch.float64)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = (position_ids[..., None].double() * self.frequencies).repeat(1, 1, 2)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def exact_model(
    config: AdapterConfig, stage: TrainingStage = "stage1", *, feature_dim: int = FEATURE_DIM, **llama: Any
) -> ImageBindLLM:
    """A model whose every trained tensor is random, so that no term of a formula hides behind a zero."""
    model = ImageBindLLM(tiny_llama(**llama).double(), feature_dim, config, stage)
    frequencies = plain.rope_frequencies(plain_config(model))
    torch.testing.assert_close(
        model.llama.model.rotary_emb.inv_freq, torch.tensor(frequencies), rtol=1e-5, atol=0, check_dtype=False
    )
    model.llama.model.rotary_emb = ExactRotary(frequencies)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("llama.") or "lora" in name or name.endswith((".bias", "norm.weight")):
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(0.2 * noise)
    return model


def plain_config(model: ImageBindLLM) -> plain.PlainConfig:
    llama, config = model.llama.config, model.config
    rope = llama.rope_parameters
    layers = tuple(range(llama.num_hidden_layers))
    if isinstance(config.fusion, AdapterPrefixConfig) and config.fusion.layers is not None:
        layers = config.fusion.layers
    return plain.PlainConfig(
        num_layers=llama.num_hidden_layers,
        num_heads=llama.num_attention_heads,
        num_kv_heads=llama.num_key_value_heads,
        head_dim=llama.head_dim,
        rms_norm_eps=llama.rms_norm_eps,
        rope_theta=rope["rope_theta"],
        llama3_rope=rope if rope["rope_type"] == "llama3" else None,
        tied=llama.tie_word_embeddings,
        fusion=config.fusion.kind,
        prefix_layers=layers,
        bind_norm=config.bind_norm,
        lora_scale=config.lora.scale,
    )


def plain_weights(model: ImageBindLLM) -> dict[str, Tensor]:
    """Copies with their own gradients."""
    return {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in model.named_parameters()}


def random_samples(count: int, *, vocab: int = 64, feature_dim: int = FEATURE_DIM, seed: int = 5) -> list[Sample]:
    """Samples of 2 to 9 tokens, every third without media."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    for index in range(count):
        length = int(rng.integers(2, 10))
        feature = torch.from_numpy(rng.standard_normal(feature_dim))
        tokens = rng.integers(1, vocab, length).tolist()
        samples.append((tokens, int(rng.integers(1, length)), None if index % 3 == 2 else feature))
    return samples


def as_dataset(samples: Sequence[Sample], *, feature_dim: int = FEATURE_DIM) -> Dataset:
    features = [feature.numpy() for _, _, feature in samples if feature is not None]
    numbers = iter(range(len(features)))
    return Dataset.of(
        [sample(t, p, NO_FEATURE if f is None else next(numbers)) for t, p, f in samples],
        np.array(features).reshape(len(features), feature_dim),
        [str(index) for index in range(len(features))],
    )


def as_batch(model: ImageBindLLM, samples: Sequence[Sample], rows: Sequence[Sequence[int]], row_tokens: int) -> Batch:
    data = as_dataset(samples, feature_dim=model.bind_network.feature_dim)
    return collate(data, rows, row_tokens=row_tokens, pad_token=PAD, media_tokens=model.fusion.media_tokens)
