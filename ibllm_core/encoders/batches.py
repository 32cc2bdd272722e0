"""Encoding in batches of one size, so that a vector never depends on what else was encoded with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# A CPU is as fast with one input at a time as with many, or faster: EfficientNet-Lite0 took 13 ms a picture alone and
# 20 in batches of 16, two blocks of ImageBind's vision tower 0.21 s against 0.23. Then no batch is filled up, and no
# bit depends on where the threads of a matrix product meet.
CPU_BATCH, ACCELERATOR_BATCH = 1, 16


def in_batches(encode: Callable[[Sequence[Tensor]], Tensor], inputs: Sequence[Tensor], device: torch.device) -> Tensor:
    """``encode`` over a device's number of inputs at a time, the last batch filled up with copies of its first input.

    Sums are taken in another order where a batch has another size, so that a batch of 7 and one of 16 may differ in the
    last bit of the same picture's vector, and the same data would compile to different datasets.
    """
    size = CPU_BATCH if device.type == "cpu" else ACCELERATOR_BATCH
    vectors = []
    for start in range(0, len(inputs), size):
        part = list(inputs[start : start + size])
        vectors.append(encode(part + part[:1] * (size - len(part)))[: len(part)])
    return torch.cat(vectors)
