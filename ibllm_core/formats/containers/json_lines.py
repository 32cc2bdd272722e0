"""JSON Lines: an object a line, blank lines between them, a byte order mark before the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.base import Container, RawRow
from ibllm_core.formats.containers.json_object import parse_object
from ibllm_core.formats.containers.lines import BLOCK_BYTES, BOM, TOO_LONG, read_lines
from ibllm_core.formats.piece import Piece
from ibllm_core.formats.sample import BadRow
from ibllm_core.formats.source import Source


@dataclass(frozen=True, kw_only=True)
class JsonLines(Container):
    """A row's number is its line's."""

    @property
    def label(self) -> str:
        """See ``Container``."""
        return "JSON Lines"

    def rows(self, source: Source, piece: Piece) -> Iterator[RawRow | BadRow]:
        """See ``Container``."""
        with closing(source.stream(piece.name, piece.start, piece.end)) as stream:
            for row, line in enumerate(read_lines(stream), start=piece.first_row):
                if line is None:
                    yield BadRow(row=row, reason=TOO_LONG)
                    continue
                if row == piece.first_row and not piece.start:
                    line = line.removeprefix(BOM)  # noqa: PLW2901
                if not line or line.isspace():
                    continue
                try:
                    yield RawRow(row, parse_object(line))
                except InvalidDataError as error:
                    yield BadRow(row=row, reason=error.message)

    def num_rows(self, source: Source, piece: Piece) -> int:
        """See ``Container``."""
        num_newlines, last = 0, b"\n"
        with closing(source.stream(piece.name, piece.start, piece.end)) as stream:
            while block := stream.read(BLOCK_BYTES):
                num_newlines += block.count(b"\n")
                last = block
        return num_newlines + (not last.endswith(b"\n"))

    def pieces(self, source: Source, name: str, first_row: int, target_bytes: int) -> list[Piece]:
        """Cut after the first newline at or beyond every ``target_bytes``; one pass counts the rows."""
        pieces: list[Piece] = []
        start = offset = num_rows = 0
        with closing(source.stream(name)) as stream:
            while block := stream.read(BLOCK_BYTES):
                at = 0
                while newline := 1 + block.find(b"\n", max(at, start + target_bytes - 1 - offset)):
                    num_rows += block.count(b"\n", at, newline)
                    end = offset + newline
                    pieces.append(Piece(name=name, start=start, end=end, first_row=first_row))
                    first_row, num_rows, start, at = first_row + num_rows, 0, end, newline
                num_rows += block.count(b"\n", at)
                offset += len(block)
        if start < offset:
            pieces.append(Piece(name=name, start=start, end=offset, first_row=first_row))
        return pieces
