"""Mixing the features of several media into one vector. Shape suffixes: S segments, F feature dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ibllm_core.errors import InvalidPromptError

RELEASED_EPSILON = 1e-6
# Encoders give 16-bit vectors, whose rounding is about 1e-3 of their length: a shorter mix is nothing but that.
SMALLEST_LENGTH = 1e-3


def mix(features: Sequence[Tensor], weights: Sequence[float] | None = None, *, renormalise: bool = True) -> Tensor:
    """``f = sum_i w_i / sum(w) * f_i / |f_i|``, then ``f / |f|``: fp32, of the features' common shape.

    ``features`` are ``[F]`` or ``[S, F]`` each, the latter mixed row by row.
    ``weights`` are equal by default. ``renormalise=False`` is the released code to the letter: it divides by ``sum(w)
    + 1e-6`` and leaves the mix shorter than the unit vectors that training saw (0.71 for two unrelated media at equal
    weights). Raises ``InvalidPromptError`` for weights or media that cannot be mixed, or that cancel each other out.
    """
    _check_shapes(features)
    shares = _checked_weights(weights, len(features))
    total = math.fsum(shares) + (0.0 if renormalise else RELEASED_EPSILON)
    units = [unit(feature.float(), f"feature {index}") for index, feature in enumerate(features)]
    mixed = torch.stack([share / total * one for share, one in zip(shares, units, strict=True)]).sum(dim=0)
    if not renormalise:
        return mixed
    lengths: Tensor = torch.linalg.vector_norm(mixed, dim=-1, keepdim=True)
    if bool((lengths < SMALLEST_LENGTH).any()):
        raise InvalidPromptError(
            f"the media cancel each other out: at weights {shares} their mix has length {lengths.min():.1e}; "
            "change the weights or drop one of the media"
        )
    return mixed / lengths


def unit(vectors: Tensor, what: str) -> Tensor:
    """``[..., F]`` with every vector at length 1; ``InvalidPromptError`` where one is zero or not finite.

    ``what`` names the vectors in the message.
    """
    if not bool(vectors.isfinite().all()):
        raise InvalidPromptError(f"{what} has NaN or infinite elements: encode the media again")
    # Divided by the largest element first, so that no square overflows or vanishes.
    peaks = vectors.abs().amax(dim=-1, keepdim=True)
    if not bool(peaks.all()):
        raise InvalidPromptError(f"{what} is a zero vector, which has no direction: leave that medium out")
    scaled = vectors / peaks
    lengths: Tensor = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / lengths


def _check_shapes(features: Sequence[Tensor]) -> None:
    if not features:
        raise InvalidPromptError("there is nothing to mix: give the features of at least one medium")
    shapes = [tuple(feature.shape) for feature in features]
    if len(set(shapes)) > 1 or not shapes[0] or 0 in shapes[0]:
        raise InvalidPromptError(
            f"features of shapes {shapes} cannot be mixed: give one shape, [F] or [S, F], all from one encoder"
        )


def _checked_weights(weights: Sequence[float] | None, num_features: int) -> list[float]:
    if weights is None:
        return [1.0] * num_features
    shares = [float(weight) for weight in weights]
    if len(shares) != num_features:
        raise InvalidPromptError(f"{len(shares)} weights stand for {num_features} features: give one a feature")
    wrong = [index for index, share in enumerate(shares) if not (math.isfinite(share) and share >= 0)]
    if wrong:
        raise InvalidPromptError(f"weights {shares}: number {wrong[0]} must be finite and not negative")
    if not any(shares):
        raise InvalidPromptError(f"weights {shares} are all zero: give at least one medium a weight above 0")
    return shares
