"""Reading a tower's tensors, none of them wrong: names and shapes before a byte of weights is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ibllm_core.bases.checks import is_finite, sha256_of
from ibllm_core.encoders.imagebind.config import ImageBindConfig, Tower
from ibllm_core.encoders.imagebind.model import ImageBind
from ibllm_core.errors import InvalidWeightsError

Shape = tuple[int, ...]
REMEDY = "give imagebind_huge.pth or imagebind_w3D.pth as released, or a folder that was split from one"


def read_checked(
    file: Path, config: ImageBindConfig, tower: Tower, shapes: Mapping[str, Shape], read: Callable[[str], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a tower with its key; ``shapes`` are those of ``file``, whose tensors ``read`` reads.

    Raises ``InvalidWeightsError`` for a missing or unknown key, a wrong shape, integers for weights, NaN and infinity.
    """
    expected = _expected(config, tower)
    for key in sorted(expected.keys() | shapes.keys()):
        _check_shape(file, key, shapes.get(key), tuple(expected[key].shape) if key in expected else None)
    for key, model in expected.items():
        tensor = read(key)
        if tensor.is_floating_point() != model.is_floating_point():
            raise _wrong(file, key, f"is stored as {tensor.dtype}", tuple(model.shape))
        # The text's causal mask is made of infinities.
        if not key.endswith(".mask") and not is_finite(tensor):
            raise _wrong(file, key, "holds NaN or infinite numbers", tuple(model.shape))
        yield key, tensor
        del tensor  # else it would live until the next one has been read


class TowerHash:
    """SHA-256 over a line ``key dtype shape sha256`` a tensor, sorted: of the content, whatever file it lies in."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, key: str, tensor: Tensor) -> None:
        """Take in a tensor in its stored dtype."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = ",".join(str(size) for size in tensor.shape)
        self._lines.append(f"{key} {dtype} {shape} {sha256_of(tensor)}\n")

    def hexdigest(self) -> str:
        """The hash of what was taken in."""
        return hashlib.sha256("".join(sorted(self._lines)).encode()).hexdigest()


def _expected(config: ImageBindConfig, tower: Tower) -> dict[str, Tensor]:
    """What a tower holds, without memory."""
    with torch.device("meta"):
        return ImageBind(config.only(tower)).state_dict()


def _check_shape(file: Path, key: str, found: Shape | None, expected: Shape | None) -> None:
    if found is None:
        raise _wrong(file, key, "is missing", expected)
    if expected is None:
        raise _wrong(file, key, f"of shape {list(found)} belongs to no part of the tower", None)
    if found != expected:
        raise _wrong(file, key, f"has shape {list(found)}", expected)


def _wrong(file: Path, key: str, problem: str, expected: Shape | None) -> InvalidWeightsError:
    wanted = "no such key" if expected is None else f"shape {list(expected)}"
    return InvalidWeightsError(
        f"{file}: {key} {problem}, expected {wanted}: {REMEDY}", file=str(file), key=key, expected=expected or wanted
    )
