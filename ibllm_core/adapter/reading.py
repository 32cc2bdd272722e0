"""An adapter of any format that can be read."""

from __future__ import annotations

from pathlib import Path

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter
from ibllm_core.adapter.released import read_released


def read_adapter(path: Path) -> Adapter:
    """Our folder, or a released ``.pth``; ``InvalidWeightsError`` names file and key."""
    return read_released(path) if path.suffix == ".pth" else files.read(path)
