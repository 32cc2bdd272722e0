"""Encoders by name: those of this project, and anybody's that an installed package registers.

A package registers one in the entry-point group ``ibllm.encoders``: the name that jobs use, and a function that takes
``weights`` (the folder that `ibllm import-encoder` filled, None where there is none), ``device`` and ``dtype`` and
returns an ``Encoder`` without reading weights.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import torch

from ibllm_core.encoders.base import Encoder
from ibllm_core.errors import InvalidSpecError

GROUP = "ibllm.encoders"


class EncoderFactory(Protocol):
    """What an entry point names."""

    def __call__(self, *, weights: Path | None, device: str, dtype: torch.dtype) -> Encoder:
        """Make the encoder; ``InvalidSpecError`` where it needs weights and has none."""


def encoder_names() -> list[str]:
    """The names that jobs may give on this machine."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_encoder(
    name: str, *, weights: Path | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Encoder:
    """The encoder of a name; ``InvalidSpecError`` for one that is not installed, or that two packages claim."""
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        raise InvalidSpecError(
            f"there is no encoder {name!r} here; there are: {', '.join(encoder_names())}. Another one comes with a "
            f"package that registers it in the entry-point group {GROUP!r}",
            encoder=name,
        )
    if len({point.value for point in points}) > 1:
        packages = ", ".join(sorted(point.dist.name for point in points if point.dist))
        raise InvalidSpecError(
            f"the encoder {name!r} is registered by more than one package ({packages}): uninstall all but one",
            encoder=name,
        )
    factory: EncoderFactory = points[0].load()
    return factory(weights=weights, device=device, dtype=dtype)
