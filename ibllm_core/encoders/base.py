"""What an encoder is: a frozen function from media to unit vectors, with a name, a licence and a hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ibllm_core.contract.media import Modality


class Encoder(Protocol):
    """A frozen encoder. Making one reads no weights: they are read by the first ``encode`` of a modality.

    ``licence`` is an SPDX name. How one is found by its name: ``ibllm_core.encoders.registry``.
    """

    name: str
    modalities: frozenset[Modality]
    feature_dim: int
    licence: str

    @property
    def sha256(self) -> str:
        """One hash for everything that a feature depends on beside the media: weights, dtype, preprocessing."""

    def weight_files(self, modality: Modality) -> Sequence[str]:
        """Which files of its weights' folder a modality needs: a node fetches no others."""

    def preprocess(self, modality: Modality, content: bytes, *, crop_seed: int | None = None) -> Tensor:
        """Decode one encoded medium into the encoder's input, of one shape a modality; needs no weights.

        ``crop_seed`` asks for a random crop of training, the same for the same seed; None for the transform of
        evaluation. Modalities without crops ignore it. ``InvalidDataError`` where the medium cannot be used.
        """

    def grey(self) -> Tensor:
        """The input of an all-grey picture: zeros after the encoder's own normalisation."""

    def encode(self, modality: Modality, inputs: Sequence[Tensor]) -> Tensor:
        """Feature vectors ``[S, feature_dim]`` of unit length, fp32, on the CPU, for inputs of ``preprocess``."""
