"""Pages of the administration's lists: by time and id, newest first unless asked otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from orchestrator.errors import NotFoundError

After = Annotated[str | None, Query(max_length=100)]
Limit = Annotated[int, Query(ge=1, le=100)]
Rows = Select[*tuple[Any, ...]]


def rows_after(
    session: Session,
    query: Rows,
    keys: tuple[InstrumentedAttribute[datetime], InstrumentedAttribute[str]],
    *filters: ColumnElement[bool],
    after: str | None,
    limit: int,
    ascending: bool = False,
) -> Sequence[Any]:
    """One row more than ``limit``, from behind the cursor, which is an id among ``query``'s whatever ``filters`` say.

    A cursor may so be what was just revoked. ``NotFoundError`` where it is none of them.
    """
    at, identity = keys
    order = (at.asc(), identity.asc()) if ascending else (at.desc(), identity.desc())
    found = query.where(*filters).order_by(*order).limit(limit + 1)
    if after is not None:
        cursor = session.execute(query.with_only_columns(at, identity).where(identity == after)).first()
        if cursor is None:
            raise NotFoundError(f"this list has no {after!r} to go on after: begin anew without it", param="after")
        here = tuple_(at, identity)
        found = found.where(here > tuple(cursor) if ascending else here < tuple(cursor))
    return session.execute(found).all()


def seconds(moment: datetime | None) -> int | None:
    """A time as OpenAI writes it: seconds since 1970."""
    return None if moment is None else int(moment.timestamp())
