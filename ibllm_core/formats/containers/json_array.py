"""A JSON array of objects, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.base import Container, RawRow
from ibllm_core.formats.containers.json_elements import read_elements
from ibllm_core.formats.containers.json_object import parse_object
from ibllm_core.formats.containers.lines import TOO_LONG
from ibllm_core.formats.piece import Piece
from ibllm_core.formats.sample import BadRow
from ibllm_core.formats.source import Source


@dataclass(frozen=True, kw_only=True)
class JsonArray(Container):
    """One piece a file: a byte in the middle does not say whether it lies in a string."""

    @property
    def label(self) -> str:
        """See ``Container``."""
        return "JSON array"

    def rows(self, source: Source, piece: Piece) -> Iterator[RawRow | BadRow]:
        """See ``Container``; where the array itself breaks, the last row says so."""
        for row, element in self._elements(source, piece):
            if element is None:
                yield BadRow(row=row, reason=TOO_LONG)
                continue
            if isinstance(element, InvalidDataError):
                yield BadRow(row=row, reason=element.message)
                continue
            try:
                yield RawRow(row, parse_object(element))
            except InvalidDataError as error:
                yield BadRow(row=row, reason=error.message)

    def num_rows(self, source: Source, piece: Piece) -> int:
        """See ``Container``."""
        return sum(1 for _ in self._elements(source, piece))

    def _elements(self, source: Source, piece: Piece) -> Iterator[tuple[int, bytes | InvalidDataError | None]]:
        row = piece.first_row
        with closing(source.stream(piece.name)) as stream:
            try:
                for element in read_elements(stream):
                    yield row, element
                    row += 1
            except InvalidDataError as error:
                yield row, error
