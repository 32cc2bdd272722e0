"""Parquet files; a piece is some of a file's row groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.base import Container, RawRow
from ibllm_core.formats.containers.columns import rows_of_batch
from ibllm_core.formats.piece import Piece
from ibllm_core.formats.sample import BadRow
from ibllm_core.formats.source import Source

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH_ROWS = 64  # pictures of a megabyte each: rows as Python objects, beside the batch that they were made of


@dataclass(frozen=True, kw_only=True)
class Parquet(Container):
    """Row groups are gathered until a piece has ``target_bytes``, uncompressed."""

    @property
    def label(self) -> str:
        """See ``Container``."""
        return "Parquet"

    def rows(self, source: Source, piece: Piece) -> Iterator[RawRow | BadRow]:
        """See ``Container``; of a row group that is torn, the first row that is missing says so."""
        import pyarrow as pa

        row = piece.first_row
        with _opened(source, piece.name) as file:
            for group in range(piece.start, piece.end):
                after = row + file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
                        yield from rows_of_batch(batch, row)
                        row += batch.num_rows
                except (pa.ArrowException, OSError) as error:
                    yield BadRow(
                        row=row,
                        reason=f"and the rest of row group {group} of {piece.name} cannot be read "
                        f"({_first_line(error)}): write or copy the file again",
                    )
                row = after

    def num_rows(self, source: Source, piece: Piece) -> int:
        """See ``Container``."""
        with _opened(source, piece.name) as file:
            return sum(file.metadata.row_group(group).num_rows for group in range(piece.start, piece.end))

    def whole(self, source: Source, name: str, first_row: int = 1) -> Piece:
        """See ``Container``."""
        with _opened(source, name) as file:
            return Piece(name=name, start=0, end=file.metadata.num_row_groups, first_row=first_row)

    def pieces(self, source: Source, name: str, first_row: int, target_bytes: int) -> list[Piece]:
        """See ``Container``."""
        pieces: list[Piece] = []
        start = num_bytes = num_rows = 0
        with _opened(source, name) as file:
            for group in range(file.metadata.num_row_groups):
                described = file.metadata.row_group(group)
                num_bytes += described.total_byte_size
                num_rows += described.num_rows
                if num_bytes >= target_bytes or group + 1 == file.metadata.num_row_groups:
                    pieces.append(Piece(name=name, start=start, end=group + 1, first_row=first_row))
                    first_row, start, num_bytes, num_rows = first_row + num_rows, group + 1, 0, 0
        return pieces


@contextmanager
def _opened(source: Source, name: str) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.seekable(name) as stream:
        try:
            # Without pre_buffer, whose row group in memory may be a gigabyte of pictures.
            file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise InvalidDataError(
                f"{name} cannot be read as Parquet ({_first_line(error)}): write or copy the file again"
            ) from error
        yield file


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
