"""Writing any base as a Hugging Face folder, one shard in memory at a time."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ibllm_core.bases.checks import check_finite, read_checked
from ibllm_core.bases.fingerprint import Fingerprint
from ibllm_core.bases.load import load_tokenizer
from ibllm_core.bases.safetensors_folder import INDEX, SINGLE
from ibllm_core.bases.source import WeightSource
from ibllm_core.errors import InvalidWeightsError

SHARD_BYTES = 2_000_000_000


def write_folder(
    source: WeightSource, folder: Path, dtype: torch.dtype | None = None, *, shard_bytes: int = SHARD_BYTES
) -> str:
    """Write a source into an empty folder as safetensors with config and tokenizer; returns the weights' hash.

    With ``dtype`` None every tensor keeps its stored dtype, and the hash is the source's own. Index and config are
    written last: a folder without them is not taken for a base. Raises ``InvalidWeightsError`` as loading does, and
    where the folder is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InvalidWeightsError(
            f"{folder} is not empty: name a new folder to write the base into", file=str(folder), expected="no files"
        )
    tokenizer = load_tokenizer(source)
    fingerprint = Fingerprint(source.config)
    shards: list[list[str]] = []
    total_bytes = 0
    written_dtype = dtype
    for number, shard in enumerate(_shards(source, dtype, shard_bytes), start=1):
        for name, tensor in shard.items():
            fingerprint.add(name, tensor)
            total_bytes += tensor.nbytes
            written_dtype = written_dtype or tensor.dtype
        save_file(shard, folder / _part(number), metadata={"format": "pt"})
        shards.append(sorted(shard))
        shard.clear()
    _name_shards(folder, shards, total_bytes)
    tokenizer.save_pretrained(folder)
    config = copy.deepcopy(source.config)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = written_dtype
    config.save_pretrained(folder)
    return fingerprint.hexdigest()


def _shards(source: WeightSource, dtype: torch.dtype | None, shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Collect tensors until the next one would not fit; the receiver empties what it was given."""
    shard: dict[str, Tensor] = {}
    size = 0
    for stored, tensor in read_checked(source):
        converted = tensor.to(dtype or tensor.dtype)
        del tensor
        if converted.dtype != stored.dtype:
            check_finite(converted, stored)
        if shard and size + converted.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[stored.name] = converted
        size += converted.nbytes
        del converted
    yield shard


def _name_shards(folder: Path, shards: Sequence[Sequence[str]], total_bytes: int) -> None:
    """Give the shards their final names, which say how many there are, and write the index."""
    if len(shards) == 1:
        (folder / _part(1)).rename(folder / SINGLE)
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        final = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / _part(number)).rename(folder / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _part(number: int) -> str:
    return f"model-{number:05d}.part"
