"""The rotary frequencies of a GGUF file: plain, scaled linearly, or as Llama 3.1 scales them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ibllm_core.bases.gguf_metadata import Metadata

FACTORS = "rope_freqs.weight"
USE_HUGGING_FACE = "give the base as a Hugging Face folder, whose config.json names the scaling"


def rope_parameters(metadata: Metadata, head_dim: int) -> dict[str, Any]:
    """transformers' ``rope_parameters``; ``InvalidWeightsError`` for a scaling that the file does not fully state."""
    theta = metadata.value("llama.rope.freq_base", 10000.0)
    linear = metadata.value("llama.rope.scale_linear", 1.0)  # the key of files from before llama.cpp knew others
    kind = metadata.value("llama.rope.scaling.type", "none" if linear == 1.0 else "linear")
    for tensor in metadata.reader.tensors:
        if tensor.name == FACTORS and kind == "none":
            return llama3_scaling(metadata, theta, head_dim, torch.from_numpy(np.array(tensor.data, dtype=np.float64)))
        if tensor.name == FACTORS:
            raise metadata.refused(FACTORS, f"divisors beside {kind} scaling", "one of the two", USE_HUGGING_FACE)
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        factor = metadata.value("llama.rope.scaling.factor", linear)
        return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    raise metadata.refused("llama.rope.scaling.type", kind, "none or linear", USE_HUGGING_FACE)


def llama3_scaling(metadata: Metadata, theta: float, head_dim: int, divisors: torch.Tensor) -> dict[str, Any]:
    """Find the Llama 3 scaling behind the divisors of the rotary frequencies, ``[head_dim / 2]``.

    llama.cpp stores only the divisors. The largest is the scaling's factor; Meta's other constants (1, 4, 8192; see
    ``apply_scaling`` of Meta's llama-models) are taken on trial, and the divisors that follow must equal the stored.
    """
    trial = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": float(divisors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(head_dim=head_dim, max_position_embeddings=131072, rope_parameters=trial)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    plain = 1.0 / theta ** (torch.arange(0, head_dim, 2).double() / head_dim)
    following = plain / scaled.double()
    # Both were computed in float32; another original length or factor moves a divisor by far more.
    if following.shape != divisors.shape or not torch.allclose(following, divisors, rtol=1e-5):
        stored = [round(float(divisor), 4) for divisor in divisors]
        raise metadata.refused(FACTORS, stored, "the divisors of Llama 3's scaling (1, 4, 8192)", USE_HUGGING_FACE)
    return trial
