"""Two ways to run the decoder layers of a training step otherwise, neither of which changes what they compute.

Both are off unless called for, hold for packed batches alone (generation keeps its plain layers), and go together, in
this order: compile, then checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ibllm_core.model.imagebind_llm import ImageBindLLM

Forward = Callable[..., Tensor]


def compile_layers(model: ImageBindLLM) -> None:
    """Fuse what lies around each layer's matrix products, by ``torch.compile``; needs a C++ or Triton compiler.

    The attention stays outside of the graphs, so that they see one shape, whatever samples a batch has: all layers and
    steps share what is compiled once. Batches of another number of tokens compile once more.
    """
    for layer in model.llama.model.layers:
        plain = layer.forward
        layer.forward = partial(_packed_or, torch.compile(plain, dynamic=False), plain)


def checkpoint_activations(model: ImageBindLLM) -> None:
    """Keep the input of each layer alone and compute the rest again in the backward pass.

    For memory: frozen layers then cost 6 N FLOPs a token instead of 4 N, half as much time again.
    """
    for layer in model.llama.model.layers:
        plain = layer.forward
        layer.forward = partial(_packed_or, partial(checkpoint, plain, use_reentrant=False), plain)


def _packed_or(packed: Forward, plain: Forward, *args: Any, **kwargs: Any) -> Tensor:
    return (packed if kwargs.get("blocks") is not None else plain)(*args, **kwargs)
