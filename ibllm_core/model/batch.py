"""The tensors of one step.

Shape suffixes: T tokens of all rows, N label tokens, S segments (samples with media) or, in ``Blocks``, samples, F
feature dimension, M places of all buckets, P spare places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

Data = TypeVar("Data")


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Where the samples lie: side by side from the first token on, ``num_tokens`` in all, then padding.

    ``bounds_S1`` are their borders as varlen kernels want them (int32, from 0), ``segments_S`` their segments.
    *Buckets* hold the samples once more, those of like length together: each is ``(samples, places a sample)`` of
    ``buckets``, and their places follow each other in ``token_of_place_M``. Places past a sample's end repeat its last
    token and are listed in ``spare_P``. ``place_of_token_T`` leads back; ``bucket_segments_S`` are the segments in the
    buckets' order.
    """

    num_tokens: int
    longest: int
    buckets: tuple[tuple[int, int], ...]
    bounds_S1: Tensor
    segments_S: Tensor
    token_of_place_M: Tensor
    place_of_token_T: Tensor
    spare_P: Tensor
    bucket_segments_S: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The samples of a step's rows side by side, then the padding, with the features of their segments.

    Every tensor lies on one device. ``blocks`` says where each sample lies; positions restart at 0 with each.
    ``places_N`` are the tokens at which ``targets_N`` are to be predicted: known on the host, so that no step waits for
    the device to count its labels. ``segments_T`` says which feature a token's sample has, ``NO_SEGMENT`` for none.
    """

    tokens_T: Tensor
    positions_T: Tensor
    segments_T: Tensor
    blocks: Blocks
    places_N: Tensor
    targets_N: Tensor
    features_SF: Tensor

    @property
    def num_labels(self) -> int:
        """Label tokens of the batch."""
        return len(self.targets_N)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return _each_tensor(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which copies to a GPU wait for nobody."""
        return _each_tensor(self, Tensor.pin_memory)


def _each_tensor(data: Data, change: Callable[[Tensor], Tensor]) -> Data:
    """A dataclass with its tensors changed, those of the dataclasses in it too."""
    changed: dict[str, Any] = {}
    for field in fields(data):  # type: ignore[arg-type]
        value = getattr(data, field.name)
        if isinstance(value, Tensor):
            value = change(value)
        elif isinstance(value, Blocks):
            value = _each_tensor(value, change)
        changed[field.name] = value
    return type(data)(**changed)
