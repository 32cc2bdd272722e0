"""What every container offers: rows as dictionaries, in parts that can be read on their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from ibllm_core.formats.piece import Piece
from ibllm_core.formats.sample import BadRow
from ibllm_core.formats.source import Source


class RawRow(NamedTuple):
    """A row's values by key, before a shape has looked at them."""

    row: int
    values: dict[str, Any]


class Container(ABC):
    """A kind of file. Instances are frozen dataclasses of settings, so that a dataset can be pickled.

    Methods raise ``InvalidDataError`` where a file as a whole cannot be read; what is wrong with a row is a ``BadRow``.
    """

    @property
    @abstractmethod
    def label(self) -> str:
        """The container's name for people."""

    @abstractmethod
    def rows(self, source: Source, piece: Piece) -> Iterator[RawRow | BadRow]:
        """The rows of a piece in order."""

    @abstractmethod
    def num_rows(self, source: Source, piece: Piece) -> int:
        """How many row numbers a piece takes, blank rows included."""

    def whole(self, source: Source, name: str, first_row: int = 1) -> Piece:
        """The file as one piece."""
        return Piece(name=name, start=0, end=source.size(name), first_row=first_row)

    def pieces(self, source: Source, name: str, first_row: int, target_bytes: int) -> list[Piece]:
        """The file in pieces of about ``target_bytes``; one, where only its beginning says where a row begins."""
        return [self.whole(source, name, first_row)]
