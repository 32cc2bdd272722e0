"""A dataset on this machine's disk. Nothing outside its folder is read, whatever a row or a link says."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from ibllm_core.errors import InvalidDataError, StorageError
from ibllm_core.formats.names import check_number, checked_name, fingerprint_of, is_hidden, shown, too_large

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What the owner of the data can mend; anything else is the disk's.
USERS_ERRORS = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LocalSource:
    """A file ``root/name``, or the folder ``root`` where ``name`` is None."""

    root: Path
    name: str | None = None

    def __post_init__(self) -> None:
        # Absolute, so that it means the same in another process; resolved, so that links can be judged against it.
        object.__setattr__(self, "root", Path(os.path.realpath(self.root)))

    @staticmethod
    def at(path: Path) -> LocalSource:
        """The source at a path; ``InvalidDataError`` where there is nothing."""
        if path.is_dir():
            return LocalSource(root=path)
        if not path.is_file():
            raise InvalidDataError(f"there is no file or folder {shown(str(path))}: check the path")
        return LocalSource(root=path.parent, name=path.name)

    @property
    def uri(self) -> str:
        """The path."""
        return str(self.root / self.name if self.name else self.root)

    def names(self) -> list[str]:
        """The one file, or all below the folder but hidden ones."""
        return [self.name] if self.name else self._listed()

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._checked(name)[1]

    def stream(self, name: str, start: int = 0, end: int | None = None) -> BinaryIO:
        """A reader of the bytes ``start`` to ``end``."""
        file = self.seekable(name)
        file.seek(start)
        return file if end is None else io.BufferedReader(_Limited(file, end - start))

    def seekable(self, name: str) -> io.BufferedReader:
        """The open file."""
        path, _ = self._checked(name)
        with self._translated(name):
            return Path(path).open("rb")

    def read_beside(self, where: str, max_bytes: int) -> bytes:
        """A file below the folder."""
        path, size = self._checked(where)
        if size > max_bytes:
            raise too_large(shown(where), max_bytes, size)
        with self._translated(where), Path(path).open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:  # it grew meanwhile
            raise too_large(shown(where), max_bytes)
        return content

    def check_beside(self, where: str) -> None:
        """Refuses what climbs out, is missing or is empty."""
        _, size = self._checked(where)
        if not size:
            raise InvalidDataError(f"{shown(where)} is empty: write the file again, or leave the row out")

    def fingerprint(self) -> str:
        """SHA-256 over name, size and hash of every file, and over the path of a single one.

        Media beside a single file are not covered: replacing them in place goes unnoticed.
        """
        return fingerprint_of(self.uri if self.name else "", self._hashed())

    def _listed(self) -> list[str]:
        found: list[str] = []
        with self._translated("."):
            for folder, folders, files in os.walk(self.root, onerror=_raise):
                folders[:] = [name for name in folders if not is_hidden(name)]
                below = Path(folder).relative_to(self.root)
                names = [str(below / name) for name in files if not is_hidden(name)]
                # A link to a folder inside is not followed: what it shows is listed under its own name.
                for name in [*names, *(str(below / name) for name in folders)]:
                    self._resolved(name)
                found += names
                check_number(len(found), self.uri)
        return sorted(found)

    def _hashed(self) -> Iterator[tuple[str, int, str]]:
        for name in self.names():
            with self.seekable(name) as file:
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
                yield name, file.tell(), checksum

    def _checked(self, name: str) -> tuple[str, int]:
        """The real path of a regular file, and its size."""
        with self._translated(name):
            path = self._resolved(name)
            found = os.stat(path)  # noqa: PTH116 - pathlib takes half of the time of checking a dataset
        if not stat.S_ISREG(found.st_mode):
            raise InvalidDataError(f"{shown(name)} in {self.root} is not a file: name one, or leave the row out")
        return path, found.st_size

    def _resolved(self, name: str) -> str:
        """Where a name leads; each component is looked at, so that no link takes a way around the root."""
        path = str(self.root)
        for part in checked_name(name).split("/"):
            path = f"{path}/{part}"
            if os.path.islink(path):  # noqa: PTH114
                path = os.path.realpath(path)
                if not Path(path).is_relative_to(self.root):
                    raise InvalidDataError(
                        f"{shown(name)} in {self.root} is a link that leaves the dataset's folder: put the file itself "
                        "there, or name a folder that holds both"
                    )
        return path

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in USERS_ERRORS:
                raise InvalidDataError(
                    f"{shown(name)} in {self.root} cannot be read ({error.strerror}): put it there, or leave the row "
                    "out"
                ) from error
            raise StorageError(f"{shown(name)} in {self.root} cannot be read: {error}") from error


def _raise(error: OSError) -> NoReturn:
    raise error


class _Limited(io.RawIOBase):
    """The next ``length`` bytes of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        super().__init__()
        self._file = file
        self._left = max(0, length)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        content = self._file.read(min(len(target), self._left))
        target[: len(content)] = content
        self._left -= len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()
