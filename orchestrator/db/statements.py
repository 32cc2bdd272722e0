"""Statements where the unit of work would cost too much: a third of its time (``tests/benchmarks/api.py``)."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Table, insert, text
from sqlalchemy.orm import Session

from orchestrator.db.models import Base

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


def lock(session: Session, name: str) -> None:
    """Wait until nobody else holds a name, and hold it until the transaction ends."""
    session.execute(_LOCK, {"name": name})


def insert_rows(session: Session, model: type[Base], rows: list[dict[str, Any]]) -> None:
    """Insert rows by the names of their columns; what refers to other rows comes after them."""
    session.execute(insert(table_of(model)), rows if len(rows) > 1 else rows[0])


def table_of(model: type[Base]) -> Table:
    """The table of a model."""
    return cast(Table, model.__table__)
