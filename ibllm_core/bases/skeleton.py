"""A LLaMA without memory, into which weights are put one by one."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.initialization import no_init_weights

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def build_skeleton(config: LlamaConfig) -> LlamaForCausalLM:
    """A model whose parameters are on the meta device."""
    with torch.device("meta"), no_init_weights():
        return LlamaForCausalLM(config)


def weight_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight; without the head where it is the embedding."""
    skeleton = build_skeleton(config)
    shapes = {name: tuple(weight.shape) for name, weight in skeleton.named_parameters(remove_duplicate=False)}
    if config.tie_word_embeddings:
        shapes.pop(HEAD)
    return shapes


def allocate(config: LlamaConfig, dtype: torch.dtype, device: torch.device | str) -> LlamaForCausalLM:
    """A model with room for its weights; the system gives the room only when they come.

    All room is taken at once, since what is read for a conversion would otherwise leave holes between the weights:
    1.45 times the weights were seen in glibc's heap with tensors of 6 MB.
    """
    return build_skeleton(config).to(dtype).to_empty(device=device)


def put_weight(llama: LlamaForCausalLM, name: str, tensor: Tensor) -> Tensor:
    """Make a tensor a weight, itself where it has the right dtype and device; returns the weight."""
    weight: Tensor = llama.get_parameter(name)
    if (tensor.dtype, tensor.device) == (weight.dtype, weight.device):
        weight.data = tensor
    else:
        weight.data.copy_(tensor)
    return weight


def finish(llama: LlamaForCausalLM, dtype: torch.dtype) -> LlamaForCausalLM:
    """Tie the head, make the rotary frequencies real (float32 in every dtype), freeze."""
    rotary = llama.model.rotary_emb
    llama.model.rotary_emb = type(rotary)(llama.config).to(llama.device)
    llama.tie_weights()
    llama.config.dtype = dtype
    return llama.requires_grad_(False).eval()
