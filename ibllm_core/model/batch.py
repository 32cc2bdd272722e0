"""The tensors of one step.

Shape suffixes: B rows, T tokens of a row, N label tokens, S segments, F feature dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed rows with the features of their segments; every tensor lies on one device.

    Positions restart at 0 with each sample. ``places_N`` are indices into the flattened rows, at which ``targets_N``
    are to be predicted: known on the host, so that no step waits for the device to count its labels. ``segments_BT``
    says which feature a token's sample has, ``NO_SEGMENT`` for none.
    """

    tokens_BT: Tensor
    positions_BT: Tensor
    segments_BT: Tensor
    places_N: Tensor
    targets_N: Tensor
    features_SF: Tensor

    @property
    def num_labels(self) -> int:
        """Label tokens of the batch."""
        return len(self.targets_N)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})
