"""A Hugging Face folder: ``config.json``, one or more ``*.safetensors``, and the tokenizer's files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from ibllm_core.bases.source import StoredTensor
from ibllm_core.bases.translate import translated_config, translated_tokenizer
from ibllm_core.errors import InvalidWeightsError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Older exports carry the rotary frequencies, which the config determines.
DERIVED = re.compile(r".*rotary_emb\.inv_freq")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class SafetensorsFolder:
    """A ``WeightSource``; ``InvalidWeightsError`` where a file is missing, torn or of another architecture."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = read_config(path / "config.json")
        self._tensors = [tensor for file in weight_files(path) for tensor in tensors_of(file)]

    def tensors(self) -> Sequence[StoredTensor]:
        """The tensors of all shards."""
        return self._tensors

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer whose files lie beside the weights."""
        return read_tokenizer(self.path)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; needs no weights in it."""
    with translated_tokenizer(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def read_config(file: Path) -> LlamaConfig:
    """Read ``config.json``, refusing other architectures and quantised weights."""
    settings = read_json(file)
    architectures = settings.get("architectures") or ["LlamaForCausalLM"]
    if settings.get("model_type") != "llama" or architectures != ["LlamaForCausalLM"]:
        raise InvalidWeightsError(
            f"{file} has {architectures} for architectures and {settings.get('model_type')!r} for model_type; only "
            "LlamaForCausalLM is supported: choose another base model",
            file=str(file),
            key="architectures",
            expected="LlamaForCausalLM",
        )
    if settings.get("quantization_config"):
        raise InvalidWeightsError(
            f"{file} says that the weights are quantised (quantization_config): give the folder with the weights in "
            "bfloat16, float16 or float32, or a GGUF file",
            file=str(file),
            key="quantization_config",
            expected="none",
        )
    with translated_config(file):
        return LlamaConfig.from_pretrained(file.parent, local_files_only=True)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: the only one, or those that the index names (transformers' order)."""
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise InvalidWeightsError(
                f"{folder / INDEX} has no weight_map: copy or download the file again",
                file=str(folder / INDEX),
                key="weight_map",
                expected="an object of file names by tensor",
            )
        # Path.name, so that an index never reaches outside its folder.
        first_keys = {Path(name).name: key for key, name in sorted(weight_map.items(), reverse=True)}
        for name, key in sorted(first_keys.items()):
            if not (folder / name).exists():
                raise InvalidWeightsError(
                    f"{folder / name} is missing, though {INDEX} says that it holds {key}: copy or download the "
                    "folder again",
                    file=str(folder / name),
                    key=key,
                    expected=name,
                )
        return [folder / name for name in sorted(first_keys)]
    raise InvalidWeightsError(
        f"{folder} has *.safetensors but neither {SINGLE} nor {INDEX}: copy or download the folder again",
        file=str(folder / SINGLE),
        expected=f"{SINGLE} or {INDEX}",
    )


def tensors_of(file: Path) -> Iterator[StoredTensor]:
    """The weights that one file holds, from its header."""
    with opened(file) as header:
        for key in header.keys():  # noqa: SIM118 - it has no __iter__
            stored = header.get_slice(key)
            if DERIVED.fullmatch(key):
                continue
            if stored.get_dtype() not in DTYPES:
                raise InvalidWeightsError(
                    f"{file} stores {key} as {stored.get_dtype()}; expected one of {', '.join(DTYPES)}: give the "
                    "folder with the weights as they were before they were quantised",
                    file=str(file),
                    key=key,
                    expected=", ".join(DTYPES),
                )
            yield StoredTensor(
                name=key,
                file=file,
                key=key,
                shape=tuple(stored.get_shape()),
                dtype=DTYPES[stored.get_dtype()],
                read=partial(read_tensor, file, key),
            )


def read_tensor(file: Path, key: str) -> Tensor:
    """Read one tensor; the file is opened for it alone, which costs the parsing of a header."""
    with opened(file) as header:
        tensor: Tensor = header.get_tensor(key)
        return tensor


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file for plain reads: pages of a mapped file would count as memory of the process."""
    try:
        with safe_open(file, framework="pt", backend="pread") as header:
            yield header
    except (SafetensorError, OSError) as error:
        raise InvalidWeightsError(
            f"{file} cannot be read as safetensors ({error}): copy or download the file again",
            file=str(file),
            expected="a complete safetensors file",
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that must hold one JSON object."""
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise InvalidWeightsError(
            f"{file} is missing: copy or download the folder again", file=str(file), expected=file.name
        ) from error
    except ValueError as error:
        raise InvalidWeightsError(
            f"{file} is no JSON ({error}): copy or download the file again", file=str(file), expected="JSON"
        ) from error
    if not isinstance(value, dict):
        raise InvalidWeightsError(f"{file} holds no JSON object", file=str(file), expected="a JSON object")
    return value
