"""What every format of a base model on disk offers: its config, a list of its tensors, and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerBase

from ibllm_core.errors import InvalidWeightsError


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


def open_source(path: Path) -> WeightSource:
    """Recognise the format of a base by what lies there.

    Raises ``InvalidWeightsError`` where nothing fits, or where the weights are pickles of Hugging Face's layout.
    """
    from ibllm_core.bases.gguf_file import GGUFFile
    from ibllm_core.bases.meta_folder import MetaFolder
    from ibllm_core.bases.safetensors_folder import SafetensorsFolder

    if path.is_file() and path.suffix == ".gguf":
        return GGUFFile(path)
    if any(path.glob("*.safetensors")) or (path / "model.safetensors.index.json").exists():
        return SafetensorsFolder(path)
    if any(path.glob("consolidated.*.pth")):
        return MetaFolder(path)
    if any(path.glob("pytorch_model*.bin")):
        raise InvalidWeightsError(
            f"{path} holds its weights as pickles (pytorch_model*.bin), which are not read: convert them once, with "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder), and give the new folder",
            file=str(path),
            expected="*.safetensors",
        )
    raise InvalidWeightsError(
        f"{path} is no base model: expected a .gguf file, a folder with config.json and *.safetensors, or Meta's "
        "folder with params.json and consolidated.00.pth",
        file=str(path),
        expected="*.gguf, *.safetensors or consolidated.*.pth",
    )
