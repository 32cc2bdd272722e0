"""Rows of a record batch of pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ibllm_core.formats.containers.base import RawRow
from ibllm_core.formats.containers.lines import not_utf8
from ibllm_core.formats.sample import BadRow

if TYPE_CHECKING:
    import pyarrow as pa


def rows_of_batch(batch: pa.RecordBatch, first_row: int) -> Iterator[RawRow | BadRow]:
    """The batch's rows; Arrow does not check that text is UTF-8, so a row may hold bytes that are none."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            yield BadRow(row=first_row, reason=f"holds text that {not_utf8(error)}")
            return
        middle = batch.num_rows // 2
        yield from rows_of_batch(batch.slice(0, middle), first_row)
        yield from rows_of_batch(batch.slice(middle), first_row + middle)
        return
    for row, values in enumerate(rows, start=first_row):
        yield RawRow(row, values)
