"""What Meta's ``consolidated.NN.pth`` hold: places of tensors in the files, without their data."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ibllm_core.bases.translate import first_line
from ibllm_core.errors import InvalidWeightsError


@dataclass(frozen=True, kw_only=True)
class Part:
    """A shard's part of a tensor: contiguous, from byte ``offset`` of ``file`` on."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


def read_shards(folder: Path) -> dict[str, list[Part]]:
    """By key, the parts of each tensor in the order of the shards, which all hold the same keys."""
    files = _shard_files(folder)
    shards = [_read_directory(file) for file in files]
    for file, shard in zip(files[1:], shards[1:], strict=True):
        for key in sorted(shards[0].keys() ^ shard.keys()):
            lacking, other = (file, files[0]) if key in shards[0] else (files[0], file)
            raise InvalidWeightsError(
                f"{lacking} lacks {key}, which {other.name} holds: copy or download the folder again",
                file=str(lacking),
                key=key,
                expected=key,
            )
    return {key: [shard[key] for shard in shards] for key in shards[0]}


def _shard_files(folder: Path) -> list[Path]:
    """``consolidated.00.pth``, ``01``, … without a gap."""
    files = sorted(folder.glob("consolidated.*.pth"))
    for number, file in enumerate(files):
        wanted = f"consolidated.{number:02d}.pth"
        if file.name != wanted:
            raise InvalidWeightsError(
                f"{folder / wanted} is missing, though {file.name} is there: copy or download the folder again",
                file=str(folder / wanted),
                expected=wanted,
            )
    return files


def _read_directory(file: Path) -> dict[str, Part]:
    """A shard's tensors, none of whose data is read; a pickle of anything else is refused before it runs."""
    try:
        content: Mapping[str, object] = torch.load(file, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidWeightsError(
            f"{file} is no PyTorch file or holds more than tensors, which could run code, and was not read "
            f"({first_line(error)}): give Meta's own file or a folder of safetensors",
            file=str(file),
            expected="a dictionary of tensors",
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise InvalidWeightsError(
            f"{file} cannot be read as a PyTorch file ({first_line(error)}): copy or download the file again",
            file=str(file),
            expected="a complete PyTorch file",
        ) from error
    if not isinstance(content, dict):
        raise InvalidWeightsError(
            f"{file} holds a {type(content).__name__}: give Meta's own file or a folder of safetensors",
            file=str(file),
            expected="a dictionary of tensors",
        )
    return {key: _place(file, key, value) for key, value in content.items()}


def _place(file: Path, key: str, value: object) -> Part:
    """Where a tensor on the meta device lies in its file.

    torch.load leaves the place of the storage in ``_checkpoint_offset`` when it loads to the meta device; see
    "Utilities for inspecting checkpoints" in PyTorch's notes on serialization. Files from before PyTorch 1.6, which
    are no zip archives, have none.
    """
    if isinstance(value, Tensor) and value.is_floating_point() and value.is_contiguous():
        start: int | None = getattr(value.untyped_storage(), "_checkpoint_offset", None)
        if start is not None:
            offset = start + int(value.storage_offset()) * value.element_size()
            return Part(file=file, offset=offset, shape=tuple(value.shape), dtype=value.dtype)
    raise InvalidWeightsError(
        f"{file} holds {key}, which is no contiguous floating-point tensor in an archive of PyTorch 1.6 or later: give "
        "Meta's own file or a folder of safetensors",
        file=str(file),
        key=str(key),
        expected="a contiguous floating-point tensor",
    )
