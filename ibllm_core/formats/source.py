"""Where a dataset's bytes lie: an uploaded file, an ``s3://`` address, a path."""

from __future__ import annotations

from typing import BinaryIO, Protocol


class Source(Protocol):
    """A file, or a folder of files. Picklable: clients are made where they are used.

    Names are relative POSIX paths below ``root``; a source of one file has that file's name alone. Every method raises
    ``InvalidDataError`` for a name that climbs out of the root, ``StorageError`` where the place cannot be reached.
    """

    @property
    def uri(self) -> str:
        """What the user called it, for messages."""

    def names(self) -> list[str]:
        """The dataset's files, sorted; media files beside a dataset's one file are not listed."""

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def stream(self, name: str, start: int = 0, end: int | None = None) -> BinaryIO:
        """A forward-only reader of the bytes ``start`` to ``end`` (exclusive)."""

    def seekable(self, name: str) -> BinaryIO:
        """A reader with random access, as Parquet needs it."""

    def read_beside(self, where: str, max_bytes: int) -> bytes:
        """A media file by its path below the dataset's folder; refuses what climbs out, is missing, is too large."""

    def check_beside(self, where: str) -> None:
        """Refuse what ``read_beside`` would refuse, as far as it can be told without a request."""

    def fingerprint(self) -> str:
        """SHA-256 that changes with the dataset's files: hashes of their bytes, or the store's ETags."""
