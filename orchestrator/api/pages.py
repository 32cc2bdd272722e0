"""Cursor pages in OpenAI's shape: newest first, stable under inserts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Row = TypeVar("Row")


def page(rows: Sequence[Row], limit: int, shown: Callable[[Row], dict[str, Any]]) -> dict[str, Any]:
    """A page of at most ``limit`` rows; ask the database for one more, to know whether there are others."""
    data = [shown(row) for row in rows[:limit]]
    return {
        "object": "list",
        "data": data,
        "has_more": len(rows) > limit,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }
