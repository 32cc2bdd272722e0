"""Meta's folder: ``consolidated.NN.pth`` (one a model-parallel rank), ``params.json`` and ``tokenizer.model``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ibllm_core.bases.layout import hugging_face_name, to_half_split
from ibllm_core.bases.meta_params import MetaParams, llama_config, read_params
from ibllm_core.bases.meta_shards import Part, read_shards
from ibllm_core.bases.raw_read import read_into
from ibllm_core.bases.source import StoredTensor
from ibllm_core.bases.tokenizer import sentencepiece_tokenizer
from ibllm_core.errors import InvalidWeightsError

TOKENIZER = "tokenizer.model"
DERIVED = re.compile(r"(layers\.\d+\.attention\.inner_attention\.)?rope\.freqs")
OUTER = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
INNER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
# fairscale's ColumnParallelLinear splits rows of the weight, RowParallelLinear and ParallelEmbedding its columns.
ROWS = {"attention.wq", "attention.wk", "attention.wv", "feed_forward.w1", "feed_forward.w3", "output"}
COLUMNS = {"attention.wo", "feed_forward.w2", "tok_embeddings"}


class MetaFolder:
    """A ``WeightSource``; the shards' pickles may hold tensors only, and no code in them runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        params = read_params(path / "params.json")
        parts_by_key = read_shards(path)
        self._tensors = [
            stored_tensor(key, parts, params) for key, parts in parts_by_key.items() if not DERIVED.fullmatch(key)
        ]
        self.config = llama_config(params, self._tensors, path)

    def tensors(self) -> Sequence[StoredTensor]:
        """The tensors, each put together from all shards when it is read."""
        return self._tensors

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The SentencePiece tokenizer of LLaMA 1 and 2."""
        return sentencepiece_tokenizer(self.path / TOKENIZER)


def stored_tensor(key: str, parts: Sequence[Part], params: MetaParams) -> StoredTensor:
    """Describe a tensor whose parts lie in the shards."""
    name, role = hugging_face_name(key, layers="layers", inner=INNER, outer=OUTER)
    first = parts[0]
    axis = 0 if role in ROWS else 1 if role in COLUMNS else None
    if role == "tok_embeddings" and first.shape[-1] == params.dim:
        axis = 0  # Llama 3 splits the vocabulary
    if len({(part.dtype, len(part.shape)) for part in parts}) > 1 or len(first.shape) <= (axis or 0):
        raise InvalidWeightsError(
            f"{first.file} and the shards beside it disagree about dtype or dimensions of {key}: copy or download the "
            "folder again",
            file=str(first.file),
            key=key,
            expected="one dtype, and two dimensions of a matrix",
        )
    shape = list(first.shape)
    if axis is not None:
        shape[axis] = sum(part.shape[axis] for part in parts)
    heads = {"attention.wq": params.n_heads, "attention.wk": params.n_kv_heads or params.n_heads}
    return StoredTensor(
        name=name,
        file=first.file,
        key=key,
        shape=tuple(shape),
        dtype=first.dtype,
        read=partial(read_tensor, key, parts, axis=axis, shape=tuple(shape), num_heads=heads.get(role)),
    )


def read_tensor(
    key: str, parts: Sequence[Part], *, axis: int | None, shape: tuple[int, ...], num_heads: int | None
) -> Tensor:
    """Read a tensor's parts into their places along ``axis``; of a norm (None) all shards hold the same copy."""
    whole = torch.empty(shape, dtype=parts[0].dtype)
    if axis is None:
        read_into(parts[0].file, parts[0].offset, whole, key=key)
        return whole
    start = 0
    for part in parts:
        place = whole.narrow(axis, start, part.shape[axis])
        target = place if place.is_contiguous() else torch.empty(part.shape, dtype=part.dtype)
        read_into(part.file, part.offset, target, key=key)
        if target is not place:
            place.copy_(target)
        start += part.shape[axis]
    return to_half_split(whole, num_heads) if num_heads else whole
