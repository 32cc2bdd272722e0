"""Counting what the backward pass keeps."""

from __future__ import annotations

import torch

from ibllm_core.model.batch import Batch
from ibllm_core.model.imagebind_llm import ImageBindLLM


def saved_bytes(model: ImageBindLLM, batch: Batch) -> int:
    """Bytes that one step keeps for its backward pass beside the parameters, each storage once."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(batch).sum()
    del loss
    return sum(kept.values())
