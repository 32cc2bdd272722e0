"""One hash for what a model computes, whatever the format and the number of files."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from torch import Tensor
from transformers import LlamaConfig

from ibllm_core.bases.checks import sha256_of


class Fingerprint:
    """SHA-256 over a line ``name dtype shape sha256`` a tensor, and one of what else the numbers depend on, sorted.

    That is the rotary embedding, the norms' eps and the heads: the same tensors compute something else with others.
    Names are Hugging Face's, dtypes the stored ones (``float32`` for quantised GGUF), a tied head is left out. So
    sharding, key order and Meta's layout do not matter, and neither does the dtype a model is loaded in.
    """

    def __init__(self, config: LlamaConfig) -> None:
        settings = {
            "rope": {key: _in_float32(value) for key, value in config.rope_parameters.items()},
            "rms_norm_eps": _in_float32(config.rms_norm_eps),
            "heads": [config.num_attention_heads, config.num_key_value_heads, config.head_dim],
            "act": config.hidden_act,
        }
        self._lines = [f"config {json.dumps(settings, sort_keys=True)}\n"]

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in a tensor in its stored dtype."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = ",".join(str(size) for size in tensor.shape)
        self._lines.append(f"{name} {dtype} {shape} {sha256_of(tensor)}\n")

    def hexdigest(self) -> str:
        """The hash of what was taken in."""
        return hashlib.sha256("".join(sorted(self._lines)).encode()).hexdigest()


def _in_float32(value: object) -> object:
    """A number as GGUF stores it, and as the model computes with it; anything else as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(np.float32(value))
    return value
