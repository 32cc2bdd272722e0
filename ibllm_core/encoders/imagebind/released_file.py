"""The released ``imagebind_huge.pth``, Point-Bind's ``imagebind_w3D.pth``, and checkpoints that hold either.

They are pickles of tensors; no code of theirs runs. The file is mapped, so that only what is asked for is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ibllm_core.bases.translate import first_line
from ibllm_core.encoders.imagebind.checks import REMEDY, TowerHash, read_checked
from ibllm_core.encoders.imagebind.config import ImageBindConfig, Tower
from ibllm_core.encoders.imagebind.model import tower_of
from ibllm_core.errors import InvalidWeightsError

# In a checkpoint of the whole ImageBind-LLM, whose other keys are not the encoder's.
PREFIX = "image_bind."


class ReleasedFile:
    """``Weights`` of a ``.pth``; its config keeps the towers of which the file has any key."""

    def __init__(self, path: Path, config: ImageBindConfig) -> None:
        self.path = path
        keys = _map_tensors(path)
        towers = {tower_of(key) for key in keys}
        if None in towers:
            key = min(key for key in keys if tower_of(key) is None)
            raise _unusable(path, f"holds {key}, which belongs to no tower of ImageBind", key=key)
        self.config = config.only(*(tower for tower in towers if tower))
        if not self.config.towers:
            raise _unusable(path, "holds no tower of ImageBind")

    def tensors(self, tower: Tower) -> Iterator[tuple[str, Tensor]]:
        """The tensors of one tower; they lie in the mapped file, so that whoever keeps one copies it."""
        mapped = {key: tensor for key, tensor in _map_tensors(self.path).items() if tower_of(key) is tower}
        shapes = {key: tuple(tensor.shape) for key, tensor in mapped.items()}
        return read_checked(self.path, self.config, tower, shapes, mapped.pop)

    def tower_hashes(self) -> dict[Tower, str]:
        """SHA-256 of every tower's content; reads the whole file."""
        hashes = {}
        for tower in self.config.towers:
            content = TowerHash()
            for key, tensor in self.tensors(tower):
                content.add(key, tensor)
            hashes[tower] = content.hexdigest()
        return hashes


def _map_tensors(path: Path) -> dict[str, Tensor]:
    """The encoder's tensors by their key without prefix, none of whose data is read."""
    if not path.exists():
        raise _unusable(path, "does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise _unusable(path, f"is no PyTorch file of tensors alone and was not run ({_reason(error)})") from error
    if isinstance(content, dict) and content.keys() == {"model"}:
        content = content["model"]
    if not isinstance(content, dict):
        raise _unusable(path, f"holds a {type(content).__name__} instead of a dictionary of tensors")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise _unusable(path, f"holds {key}, which is a {type(value).__name__} and no tensor", key=str(key))
    if any(key.startswith(PREFIX) for key in content):
        content = {key.removeprefix(PREFIX): value for key, value in content.items() if key.startswith(PREFIX)}
    return {key: value.detach() for key, value in content.items()}


def _reason(error: Exception) -> str:
    """What torch.load objects to, without its advice to switch the check off."""
    objection = re.search(r"WeightsUnpickler error: (.+?)(?: was not an allowed global| by default|\n|$)", str(error))
    return objection[1] if objection else first_line(error)


def _unusable(path: Path, problem: str, *, key: str | None = None) -> InvalidWeightsError:
    return InvalidWeightsError(
        f"{path} {problem}: {REMEDY}", file=str(path), key=key, expected="ImageBind's released tensors"
    )
