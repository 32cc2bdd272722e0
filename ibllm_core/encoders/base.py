"""What an encoder is: a frozen function from media to unit vectors, with a name and a hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ibllm_core.errors import InvalidSpecError


class Encoder(Protocol):
    """A frozen image encoder. ``sha256`` is that of its weights; ``licence`` an SPDX name."""

    name: str
    feature_dim: int
    licence: str
    sha256: str

    def preprocess(self, image: bytes) -> Tensor:
        """Decode one encoded picture into the encoder's input; ``InvalidDataError`` where it is unreadable."""

    def grey(self) -> Tensor:
        """The input of an all-grey picture: zeros after the encoder's own normalisation."""

    def encode(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature vectors ``[S, feature_dim]`` of unit length, fp32, on the CPU."""


def load_encoder(name: str) -> Encoder:
    """The encoder of a name; its weights are read here."""
    if name == "efficientnet-lite0":
        from ibllm_core.encoders.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0()
    raise InvalidSpecError(f"there is no encoder {name!r}; this build has: efficientnet-lite0")
