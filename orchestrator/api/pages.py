"""Cursor pages in OpenAI's shape, stable under inserts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ibllm_core.contract.api.common import Page

Row = TypeVar("Row")
Item = TypeVar("Item")


def page(rows: Sequence[Row], limit: int, shown: Callable[[Row], Item]) -> Page[Item]:
    """A page of at most ``limit`` rows; ask the database for one more, to know whether there are others."""
    data = [shown(row) for row in rows[:limit]]
    ids = [str(item.id) for item in data]  # type: ignore[attr-defined]
    return Page(
        data=data,
        has_more=len(rows) > limit,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )
