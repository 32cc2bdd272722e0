"""Arrow's stream format, as ``datasets.save_to_disk`` writes it, and its file format (Feather)."""

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
    import pyarrow as pa

FILE_MAGIC = b"ARROW1\0\0"  # the file format is the stream format behind these bytes, and an index after it
SLICE_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Arrow(Container):
    """A piece is the bytes of some record batches, so that reading one passes over no other."""

    @property
    def label(self) -> str:
        """See ``Container``."""
        return "Arrow"

    def rows(self, source: Source, piece: Piece) -> Iterator[RawRow | BadRow]:
        """See ``Container``; where a batch is torn, the first row that is missing says so, and the file ends."""
        row = piece.first_row
        with _opened(source, piece.name) as stream:
            for batch in stream.batches(piece.start, piece.end):
                if isinstance(batch, InvalidDataError):
                    yield BadRow(row=row, reason=batch.message)
                    return
                for start in range(0, batch.num_rows, SLICE_ROWS):
                    yield from rows_of_batch(batch.slice(start, SLICE_ROWS), row + start)
                row += batch.num_rows

    def num_rows(self, source: Source, piece: Piece) -> int:
        """See ``Container``."""
        with _opened(source, piece.name) as stream:
            return sum(_num_rows(batch) for batch in stream.batches(piece.start, piece.end))

    def pieces(self, source: Source, name: str, first_row: int, target_bytes: int) -> list[Piece]:
        """See ``Container``; the format has no index, one pass over the file finds the batches."""
        pieces: list[Piece] = []
        start = num_rows = 0
        size = source.size(name)
        with _opened(source, name) as stream:
            for batch in stream.batches(0, size):
                num_rows += _num_rows(batch)
                end = stream.tell()
                if end - start >= target_bytes and not isinstance(batch, InvalidDataError):
                    pieces.append(Piece(name=name, start=start, end=end, first_row=first_row))
                    first_row, start, num_rows = first_row + num_rows, end, 0
        if num_rows:
            pieces.append(Piece(name=name, start=start, end=size, first_row=first_row))
        return pieces


class _Batches:
    """The record batches of a file from one offset to another; 0 is the first one."""

    def __init__(self, name: str, file: pa.PythonFile) -> None:
        import pyarrow as pa

        self._name = name
        self._file = file
        self.tell = file.tell
        try:
            if file.read(len(FILE_MAGIC)) != FILE_MAGIC:
                file.seek(0)
            self._schema = pa.ipc.read_schema(file)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise InvalidDataError(f"{name} cannot be read as Arrow ({error}): write or copy the file again") from error
        encoded = [field.name for field in self._schema if pa.types.is_dictionary(field.type)]
        if encoded:
            raise InvalidDataError(
                f"{name} has the dictionary-encoded column {encoded[0]!r}, and its batches cannot be read alone: "
                "save it as plain text"
            )

    def batches(self, start: int, end: int) -> Iterator[pa.RecordBatch | InvalidDataError]:
        """The batches that begin in the range; an error in place of the first that is torn, and nothing after it."""
        import pyarrow as pa

        if start:
            self._file.seek(start)
        while self._file.tell() < end:
            try:
                yield pa.ipc.read_record_batch(pa.ipc.read_message(self._file), self._schema)
            except EOFError:
                return
            except (pa.ArrowException, OSError) as error:
                yield InvalidDataError(
                    f"and the rest of {self._name} cannot be read ({error}): write or copy the file again"
                )
                return


@contextmanager
def _opened(source: Source, name: str) -> Iterator[_Batches]:
    import pyarrow as pa

    with source.seekable(name) as stream:
        yield _Batches(name, pa.PythonFile(stream, mode="r"))


def _num_rows(batch: pa.RecordBatch | InvalidDataError) -> int:
    return 1 if isinstance(batch, InvalidDataError) else batch.num_rows
