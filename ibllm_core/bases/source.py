"""What every format of a base model on disk offers: its config, a list of its tensors, and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor that has not been read yet; ``name`` is Hugging Face's, ``key`` the file's own, for messages.

    ``read`` returns a tensor of this shape and dtype which belongs to the caller: nothing else keeps it alive.
    """

    name: str
    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


class WeightSource(Protocol):
    """A ``LlamaForCausalLM`` on disk in any format; opening one reads headers only."""

    path: Path
    config: LlamaConfig

    def tensors(self) -> Sequence[StoredTensor]:
        """Every tensor that carries weights, in any order, as it is stored (quantised ones as float32)."""

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that belongs to the weights."""
