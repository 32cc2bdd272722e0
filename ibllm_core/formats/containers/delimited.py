"""CSV and TSV: records of cells, with or without a header."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.base import Container, RawRow
from ibllm_core.formats.containers.lines import BOM, MAX_ROW_BYTES, TOO_LONG, not_utf8, read_lines
from ibllm_core.formats.piece import Piece
from ibllm_core.formats.sample import BadRow
from ibllm_core.formats.source import Source

# A quote that nothing closes costs one row, not the rest of the file.
MAX_RECORD_LINES = 1000

_DELIMITER_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon"}


@dataclass(frozen=True, kw_only=True)
class Delimited(Container):
    """One piece a file: only its beginning says whether a newline lies in quotes.

    ``columns`` are those of files without a header. A row's number is its record's, not counting the header.
    """

    delimiter: str
    columns: tuple[str, ...] | None

    @property
    def label(self) -> str:
        """See ``Container``."""
        return "TSV" if self.delimiter == "\t" else "CSV"

    def rows(self, source: Source, piece: Piece) -> Iterator[RawRow | BadRow]:
        """See ``Container``."""
        with closing(source.stream(piece.name)) as stream:
            records = read_records(stream, self.delimiter)
            columns = self.columns or _read_header(records)
            for row, cells in enumerate(records, start=piece.first_row):
                if isinstance(cells, InvalidDataError):
                    yield BadRow(row=row, reason=cells.message)
                elif len(cells) == len(columns):
                    yield RawRow(row, dict(zip(columns, cells, strict=True)))
                elif cells:
                    yield BadRow(row=row, reason=self._wrong_count(len(cells), len(columns)))

    def num_rows(self, source: Source, piece: Piece) -> int:
        """See ``Container``."""
        with closing(source.stream(piece.name)) as stream:
            records = read_records(stream, self.delimiter)
            if not self.columns:
                _read_header(records)
            return sum(1 for _ in records)

    def _wrong_count(self, found: int, expected: int) -> str:
        name = _DELIMITER_NAMES[self.delimiter]
        remedy = "fill the missing ones" if found < expected else f"quote a cell that holds a {name} or a newline"
        return f"has {found} {'cell' if found == 1 else 'cells'} where {expected} belong: {remedy}"


def read_records(stream: BinaryIO, delimiter: str) -> Iterator[list[str] | InvalidDataError]:
    """Cells of every record, none for a blank line; an error in place of a record that cannot be read.

    Not by the module ``csv``: its limit of a cell (128 KiB, too small for a picture) is one for the whole process.
    """
    lines = _Lines(stream)
    while (line := lines.next()) is not None:
        if isinstance(line, InvalidDataError):
            yield line
        elif '"' not in line:
            yield line.split(delimiter) if line and not line.isspace() else []
        else:
            yield _read_quoted(line, lines, delimiter)


class _Lines:
    """Lines as text, of which those that turned out not to belong to a record can be given back."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = read_lines(stream)
        self._given_back: list[str | InvalidDataError] = []
        self._is_first = True

    def next(self) -> str | InvalidDataError | None:
        """The next line, ``None`` at the end."""
        if self._given_back:
            return self._given_back.pop()
        for line in self._lines:
            if line is None:
                return InvalidDataError(TOO_LONG)
            if self._is_first:
                line = line.removeprefix(BOM)  # noqa: PLW2901
                self._is_first = False
            try:
                return line.removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                return InvalidDataError(not_utf8(error))
        return None

    def give_back(self, lines: list[str | InvalidDataError]) -> None:
        """Let ``next`` return these again."""
        self._given_back += reversed(lines)


def _read_quoted(line: str, lines: _Lines, delimiter: str) -> list[str] | InvalidDataError:
    """Split a line with quotes, and those after it while a quoted cell goes on."""
    cells = _split(line, delimiter)
    record, size = [line], len(line)
    taken: list[str | InvalidDataError] = []
    while cells is None:
        following = lines.next() if len(taken) < MAX_RECORD_LINES and size <= MAX_ROW_BYTES else None
        taken += [] if following is None else [following]
        if isinstance(following, InvalidDataError):
            lines.give_back(taken)
            return InvalidDataError(f"has a quoted cell with a line that {following.message}")
        if following is not None:
            record.append(following)
            size += len(following)
            cells = _split("\n".join(record), delimiter) if '"' in following else None
        if following is None or cells == []:
            lines.give_back(taken)
            return InvalidDataError('opens a quote (") that nothing closes: close it, or double it in a quoted cell')
    return cells


def _split(record: str, delimiter: str) -> list[str] | None:
    """The cells; ``None`` where a quoted one has no end. A quote within a cell, or before more text, is a character.

    None at all where such a quote would join two lines: then they are no record.
    """
    cells: list[str] = []
    at = 0
    while True:
        if record.startswith('"', at):
            end = _closing_quote(record, at + 1)
            if end < 0:
                return None
            if record[end + 1 : end + 2] in ("", delimiter):
                cells.append(record[at + 1 : end].replace('""', '"'))
                at = end + 2
                if at > len(record):
                    return cells
                continue
        end = record.find(delimiter, at)
        cell = record[at:] if end < 0 else record[at:end]
        if "\n" in cell:
            return []
        cells.append(cell)
        if end < 0:
            return cells
        at = end + 1


def _closing_quote(record: str, start: int) -> int:
    """The first quote that is not doubled; -1 where there is none."""
    end = record.find('"', start)
    while end >= 0 and record[end + 1 : end + 2] == '"':
        end = record.find('"', end + 2)
    return end


def _read_header(records: Iterator[list[str] | InvalidDataError]) -> tuple[str, ...]:
    header = next((cells for cells in records if cells), [])
    if isinstance(header, InvalidDataError):
        raise InvalidDataError(f"the header of the table {header.message}")
    columns = tuple(cell.strip() for cell in header)
    if len(set(columns)) < len(columns):
        raise InvalidDataError(f"the header of the table names a column twice ({', '.join(columns)}): rename one")
    return columns


def first_records(stream: BinaryIO, delimiter: str, count: int) -> list[list[str]]:
    """The first records that can be read, blank ones left out."""
    records = read_records(stream, delimiter)
    return list(islice((cells for cells in records if isinstance(cells, list) and cells), count))
