"""Plain reads of tensors. Pages of a mapped file count as memory of the process, so nothing is mapped."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ibllm_core.errors import InvalidWeightsError


def read_into(file: Path, offset: int, target: Tensor, *, key: str) -> None:
    """Fill a contiguous CPU tensor with the bytes of ``file`` from ``offset`` on; both are little endian.

    Raises ``InvalidWeightsError`` naming file and key where the file ends before that.
    """
    buffer = bytes_of(target)
    filled = 0
    with file.open("rb", buffering=0) as source:
        source.seek(offset)
        while filled < len(buffer):
            count = source.readinto(buffer[filled:])  # Linux reads at most 2 GiB at once
            if not count:
                raise InvalidWeightsError(
                    f"{file} ends in the middle of {key}: expected {len(buffer)} bytes at {offset}, found {filled}; "
                    "copy or download the file again",
                    file=str(file),
                    key=key,
                    expected=len(buffer),
                )
            filled += count


def bytes_of(tensor: Tensor) -> memoryview:
    """A contiguous CPU tensor's own memory, row-major; writing to it writes to the tensor."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy().data)
