"""A GGUF file of the llama architecture, quantised or not. Names as in llama.cpp's ``gguf/constants.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ibllm_core.bases.gguf_config import llama_config
from ibllm_core.bases.gguf_metadata import Metadata, read_metadata
from ibllm_core.bases.gguf_rope import FACTORS
from ibllm_core.bases.layout import hugging_face_name, to_half_split
from ibllm_core.bases.raw_read import read_into
from ibllm_core.bases.source import StoredTensor
from ibllm_core.bases.translate import translated_tokenizer
from ibllm_core.errors import InvalidWeightsError

OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
PLAIN = {
    GGMLQuantizationType.F64: torch.float64,
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
BLOCK_ELEMENTS = 1 << 18  # dequantised at once: 1 MiB of float32 and several times that for numpy's steps


class GGUFFile:
    """A ``WeightSource``; the file is mapped only while its header is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        metadata = read_metadata(path)
        self.config = llama_config(metadata)
        heads = {"attn_q": self.config.num_attention_heads, "attn_k": self.config.num_key_value_heads}
        self._tensors = list(stored_tensors(metadata, heads))

    def tensors(self) -> Sequence[StoredTensor]:
        """The tensors in Hugging Face's layout; quantised ones become float32 when they are read."""
        return self._tensors

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer in the file's metadata."""
        with translated_tokenizer(self.path):
            return AutoTokenizer.from_pretrained(self.path.parent, gguf_file=self.path.name, local_files_only=True)


def stored_tensors(metadata: Metadata, heads: dict[str, int]) -> Iterator[StoredTensor]:
    """Describe the file's tensors; ``heads`` are those of q and k, whose rows llama.cpp interleaves."""
    path = metadata.path
    shapes = metadata.shapes()
    for tensor in metadata.reader.tensors:
        if tensor.name == FACTORS:
            continue  # they are in the config
        quantisation = GGMLQuantizationType(tensor.tensor_type)
        if quantisation not in PLAIN:
            _check_can_dequantise(path, tensor.name, quantisation)
        name, role = hugging_face_name(tensor.name, layers="blk", inner=INNER, outer=OUTER)
        yield StoredTensor(
            name=name,
            file=path,
            key=tensor.name,
            shape=shapes[tensor.name],
            dtype=PLAIN.get(quantisation, torch.float32),
            read=partial(
                read_tensor,
                path,
                tensor.name,
                quantisation=quantisation,
                offset=int(tensor.data_offset),
                shape=shapes[tensor.name],
                num_heads=heads.get(role),
            ),
        )


def read_tensor(
    path: Path,
    key: str,
    *,
    quantisation: GGMLQuantizationType,
    offset: int,
    shape: tuple[int, ...],
    num_heads: int | None,
) -> Tensor:
    """Read a tensor, dequantised where it must be, with q's and k's rows back in Hugging Face's order."""
    tensor = torch.empty(shape, dtype=PLAIN.get(quantisation, torch.float32))
    if quantisation in PLAIN:
        read_into(path, offset, tensor, key=key)
    else:
        _read_dequantised(path, key, quantisation, offset, tensor)
    return to_half_split(tensor, num_heads) if num_heads else tensor


def _read_dequantised(path: Path, key: str, quantisation: GGMLQuantizationType, offset: int, target: Tensor) -> None:
    """Fill ``target`` block by block, so that numpy's intermediate arrays stay small."""
    block_elements, block_bytes = gguf.GGML_QUANT_SIZES[quantisation]
    flat = target.view(-1)
    step = BLOCK_ELEMENTS // block_elements * block_elements
    for start in range(0, flat.numel(), step):
        part = flat[start : start + step]
        blocks = torch.empty(1, part.numel() // block_elements * block_bytes, dtype=torch.uint8)  # one row: gguf loops
        read_into(path, offset + start // block_elements * block_bytes, blocks, key=key)
        part.copy_(torch.from_numpy(gguf.dequantize(blocks.numpy(), quantisation)).view(-1))


def _check_can_dequantise(path: Path, key: str, quantisation: GGMLQuantizationType) -> None:
    _, block_bytes = gguf.GGML_QUANT_SIZES[quantisation]
    try:
        gguf.dequantize(np.zeros((1, block_bytes), dtype=np.uint8), quantisation)
    except NotImplementedError as error:
        raise InvalidWeightsError(
            f"{path} stores {key} as {quantisation.name}, which cannot be dequantised here: give the file in another "
            "quantisation, such as Q8_0 or F16",
            file=str(path),
            key=key,
            expected="a quantisation of the gguf package",
        ) from error
