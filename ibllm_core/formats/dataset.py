"""A dataset of any known format, as samples.

Two independent axes: a container (``containers/``) makes rows of a file, a shape (``shapes/``) makes a sample of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.base import Container, RawRow
from ibllm_core.formats.detect import KNOWN, detect_container
from ibllm_core.formats.layout import data_files, is_metadata
from ibllm_core.formats.piece import Piece
from ibllm_core.formats.sample import BadRow, Media, Sample
from ibllm_core.formats.shapes.known import SHAPES, Keys, Shape, present_keys, shape_of
from ibllm_core.formats.source import Source

__all__ = ["Dataset", "Piece", "open_dataset"]

# Enough that some bad rows, or some without a picture, decide nothing; they may hold a megabyte each.
LOOKED_AT_ROWS = 50
LOOKED_AT_FILES = 8
COUNTING_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Files of one container whose rows have one shape; picklable where the source is."""

    source: Source
    files: tuple[str, ...]
    container: Container
    shape: Shape

    @property
    def format(self) -> str:
        """What it is, for people: ``LLaVA conversations (JSON array)``."""
        return f"{self.shape.name} ({self.container.label})"

    def pieces(self, target_bytes: int = 16 << 20) -> list[Piece]:
        """Parts that can be read on their own, in order, of about ``target_bytes`` where the container can be cut.

        Rows are numbered through all files, so each but the last is counted, several side by side: where that takes
        reading it, it is read.
        """
        with ThreadPoolExecutor(COUNTING_THREADS) as threads:
            counted = list(threads.map(lambda name: self._counted(name, target_bytes), self.files))
        pieces: list[Piece] = []
        rows_before = 0
        for found, num_rows in counted:
            pieces += [replace(piece, first_row=rows_before + piece.first_row) for piece in found]
            rows_before += num_rows
        return pieces

    def _counted(self, name: str, target_bytes: int) -> tuple[list[Piece], int]:
        """The pieces of a file, as if it were the only one, and its rows, which of the last file nobody asks for."""
        found = self.container.pieces(self.source, name, 1, target_bytes)
        if not found or name == self.files[-1]:
            return found, 0
        return found, found[-1].first_row - 1 + self.container.num_rows(self.source, found[-1])

    def read(self, piece: Piece) -> Iterator[Sample | BadRow]:
        """The rows of a piece in order; a row that cannot be used is a ``BadRow``, and the rest goes on."""
        folder = PurePosixPath(piece.name).parent if is_metadata(piece.name) else None
        for row in self.container.rows(self.source, piece):
            yield self._sample(row, folder) if isinstance(row, RawRow) else row

    def __iter__(self) -> Iterator[Sample | BadRow]:
        for piece in self.pieces():
            yield from self.read(piece)

    def _sample(self, row: RawRow, folder: PurePosixPath | None) -> Sample | BadRow:
        try:
            turns, media, system = self.shape.read(row.values)
        except InvalidDataError as error:
            return BadRow(row=row.row, reason=error.message)
        if folder:
            media = tuple(_below(folder, medium) for medium in media)
        return Sample(row=row.row, turns=turns, media=media, system=system)


def open_dataset(source: Source) -> Dataset:
    """Recognise a dataset by its files' names, their first bytes and its first rows.

    Raises ``InvalidDataError`` where it is not recognised: what was seen, what is known, what to change.
    """
    files = data_files(source)
    container = detect_container(source, next((name for name in files if source.size(name)), files[0]))
    return Dataset(
        source=source, files=tuple(files), container=container, shape=_detect_shape(source, files, container)
    )


def _detect_shape(source: Source, files: Sequence[str], container: Container) -> Shape:
    rows: list[Keys] = []
    bad: list[BadRow] = []
    for name in files[:LOOKED_AT_FILES]:
        first = container.rows(source, container.whole(source, name))
        for row in islice(first, LOOKED_AT_ROWS - len(rows) - len(bad)):
            if isinstance(row, BadRow):
                bad.append(row)
            else:
                rows.append(present_keys(row.values))
    shape = shape_of(rows)
    if shape:
        return shape
    if rows:
        seen = sorted(frozenset.union(*rows))
        found = f"rows with the keys {', '.join(repr(key[:40]) for key in seen[:20])}" if seen else "rows without keys"
    elif bad:
        found = f"{len(bad)} rows of which none can be read; row {bad[0].row} {bad[0].reason}"
    else:
        found = "no rows"
    raise InvalidDataError(
        f"{source.uri} is {container.label} and holds {found}. Known rows are "
        f"{'; '.join(f'{shape.name}: {shape.keys}' for shape in SHAPES)}; in {KNOWN}. Rename the keys to those of one"
    )


def _below(folder: PurePosixPath, medium: Media) -> Media:
    if medium.where is None or "://" in medium.where:
        return medium
    return replace(medium, where=str(folder / medium.where))
