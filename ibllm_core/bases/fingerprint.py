"""One hash for the weights of a model, whatever the format and the number of files."""

from __future__ import annotations

import hashlib

from torch import Tensor

from ibllm_core.bases.checks import sha256_of


class Fingerprint:
    """SHA-256 over a line ``name dtype shape sha256`` a tensor, sorted.

    Names are Hugging Face's, dtypes the stored ones (``float32`` for quantised GGUF), a tied head is left out. So
    sharding, key order and Meta's layout do not matter, and neither does the dtype a model is loaded in.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in a tensor in its stored dtype."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = ",".join(str(size) for size in tensor.shape)
        self._lines.append(f"{name} {dtype} {shape} {sha256_of(tensor)}\n")

    def hexdigest(self) -> str:
        """The hash of what was taken in."""
        return hashlib.sha256("".join(sorted(self._lines)).encode()).hexdigest()
