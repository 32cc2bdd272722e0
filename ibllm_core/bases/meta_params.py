"""Meta's ``params.json``, and the config that follows from it and from the shapes of the tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError
from transformers import LlamaConfig

from ibllm_core.bases.source import StoredTensor
from ibllm_core.bases.translate import translated_config
from ibllm_core.errors import InvalidWeightsError

# Context lengths that Meta published: Llama 3 and Code Llama are known by their rope_theta, LLaMA 1 by its float16
# weights (Llama 2 came in bfloat16).
CONTEXT_BY_THETA = {500_000.0: 8192, 1_000_000.0: 16384}
CONTEXT_LLAMA_1 = 2048
CONTEXT_LLAMA_2 = 4096


class MetaParams(BaseModel):
    """The keys that matter; ``multiple_of`` and ``ffn_dim_multiplier`` do not, since the tensors have the width."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dim: PositiveInt
    n_layers: PositiveInt
    n_heads: PositiveInt
    n_kv_heads: PositiveInt | None = None
    norm_eps: PositiveFloat
    rope_theta: PositiveFloat = 10000.0
    use_scaled_rope: bool = False
    max_seq_len: PositiveInt | None = None


def read_params(file: Path) -> MetaParams:
    """Read ``params.json``; ``InvalidWeightsError`` names what is wrong with it."""
    try:
        params = MetaParams.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise InvalidWeightsError(
            f"{file} is missing: copy Meta's params.json, which describes the model, beside the weights",
            file=str(file),
            expected="params.json",
        ) from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'content'}: {p['msg']}" for p in error.errors())
        raise InvalidWeightsError(
            f"{file} is not Meta's params.json: {problems}; copy or download the file again",
            file=str(file),
            key=".".join(map(str, error.errors()[0]["loc"])),
            expected="dim, n_layers, n_heads, norm_eps",
        ) from error
    if params.use_scaled_rope:
        raise InvalidWeightsError(
            f"{file} says use_scaled_rope (Llama 3.1 and later) without the factors of the scaling: give the base as "
            "a Hugging Face folder, whose config.json has them",
            file=str(file),
            key="use_scaled_rope",
            expected="false",
        )
    if params.dim % params.n_heads or params.n_heads % (params.n_kv_heads or 1):
        raise InvalidWeightsError(
            f"{file} is inconsistent: dim {params.dim}, n_heads {params.n_heads} and n_kv_heads {params.n_kv_heads} "
            "must divide each other in this order; copy or download the file again",
            file=str(file),
            key="n_heads",
            expected="a divisor of dim",
        )
    return params


def llama_config(params: MetaParams, tensors: Sequence[StoredTensor], folder: Path) -> LlamaConfig:
    """Put the config together; vocabulary and width of the feed-forward net come from the tensors.

    ``max_position_embeddings`` is ``max_seq_len`` where params.json has that key, else what Meta published for the
    generation that the file belongs to. It limits nothing inside the model, whose rotary frequencies need no table.
    """
    by_key = {tensor.key: tensor for tensor in tensors}
    vocabulary, gate = (
        _tensor(by_key, key, folder) for key in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight")
    )
    context = CONTEXT_BY_THETA.get(
        params.rope_theta, CONTEXT_LLAMA_1 if vocabulary.dtype == torch.float16 else CONTEXT_LLAMA_2
    )
    with translated_config(folder / "params.json"):
        return LlamaConfig(
            vocab_size=vocabulary.shape[0],
            hidden_size=params.dim,
            intermediate_size=gate.shape[0],
            num_hidden_layers=params.n_layers,
            num_attention_heads=params.n_heads,
            num_key_value_heads=params.n_kv_heads or params.n_heads,
            rms_norm_eps=params.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": params.rope_theta},
            max_position_embeddings=params.max_seq_len or context,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
            architectures=["LlamaForCausalLM"],
        )


def _tensor(by_key: dict[str, StoredTensor], key: str, folder: Path) -> StoredTensor:
    if key not in by_key:
        raise InvalidWeightsError(
            f"{folder} lacks {key} in its consolidated.*.pth: copy or download the folder again",
            file=str(folder),
            key=key,
            expected=key,
        )
    return by_key[key]
