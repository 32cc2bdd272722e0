"""A part of a dataset that can be read on its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The part ``start`` to ``end`` (exclusive) of the file ``name``; its first row has the number ``first_row``.

    The two are bytes, but for Parquet, where they are row groups.
    """

    name: str
    start: int
    end: int
    first_row: int
