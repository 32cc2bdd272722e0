"""How Meta's and llama.cpp's layout differ from Hugging Face's: other names, and other rows in q and k."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor


def hugging_face_name(key: str, *, layers: str, inner: Mapping[str, str], outer: Mapping[str, str]) -> tuple[str, str]:
    """Hugging Face's name of a tensor, and its role without the layer.

    ``layers`` is what a layer's number follows (``blk``), ``inner`` and ``outer`` map roles within and outside of the
    layers. A key that no map knows stays as it is, and is refused where the model's weights are checked.
    """
    role, _, leaf = key.rpartition(".")
    if match := re.fullmatch(rf"{layers}\.(\d+)\.(.+)", role):
        layer, role = match.groups()
        return (f"model.layers.{layer}.{inner[role]}.{leaf}" if role in inner else key), role
    return (f"{outer[role]}.{leaf}" if role in outer else key), role


def to_half_split(rows: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of each head from ``x0 y0 x1 y1 …`` to ``x0 x1 … y0 y1 …``, in which rotate_half works.

    ``rows`` is ``[num_heads * head_dim, in]`` or a bias ``[num_heads * head_dim]``; q has ``num_heads`` query heads,
    k has the key-value heads. Follows ``permute`` of transformers' convert_llama_weights_to_hf.py.
    """
    head_dim = rows.shape[0] // num_heads
    return rows.view(num_heads, head_dim // 2, 2, -1).transpose(1, 2).reshape(rows.shape)


def to_interleaved(rows: Tensor, num_heads: int) -> Tensor:
    """The way back from ``to_half_split``."""
    return rows.view(num_heads, 2, rows.shape[0] // num_heads // 2, -1).transpose(1, 2).reshape(rows.shape)
