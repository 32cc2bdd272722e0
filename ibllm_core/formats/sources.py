"""The places a dataset may lie: an address becomes a source that is read but never trusted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.bucket import Bucket
from ibllm_core.formats.local import LocalSource
from ibllm_core.formats.names import checked_key, checked_name, fingerprint_of, is_hidden, shown
from ibllm_core.formats.source import Source
from ibllm_core.settings import StorageSettings

__all__ = ["LocalSource", "S3Source", "StoreSource", "open_source", "split_s3", "user_bucket"]

BUCKET_NAME = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def open_source(location: str, *, settings: StorageSettings | None = None, allow_local: bool = False) -> Source:
    """The source at ``s3://bucket/key-or-prefix``, or at a path where ``allow_local``.

    ``InvalidDataError`` where there is nothing, or where it must not be read; ``StorageError`` where the store of
    ``settings`` cannot be reached.
    """
    if location.lower().startswith("s3://"):
        return _open_s3(location, settings)
    if SCHEME.match(location):
        raise InvalidDataError(f"{shown(location)} cannot be read as a dataset: upload it, or copy it to s3://")
    if not allow_local:
        raise InvalidDataError(
            f"{shown(location)} is a path, and this service reads no files of its machines: upload the file, or copy "
            "the folder to s3://"
        )
    return LocalSource.at(Path(location))


@dataclass(frozen=True, kw_only=True)
class StoreSource:
    """One uploaded file in the service's bucket; ``name`` is what its user called it. No media lie beside it."""

    settings: StorageSettings = field(repr=False)  # holds the secret key
    key: str
    name: str

    @property
    def uri(self) -> str:
        """The file's name as its user knows it."""
        return self.name

    def names(self) -> list[str]:
        """The one file."""
        return [self.name]

    def size(self, name: str) -> int:
        """Bytes of the file."""
        return self._bucket.entry(self._key(name)).size

    def stream(self, name: str, start: int = 0, end: int | None = None) -> BinaryIO:
        """A forward-only reader; it goes on by itself where a connection breaks."""
        return self._bucket.stream(self._key(name), start, end)

    def seekable(self, name: str) -> BinaryIO:
        """A reader that asks the store for each range."""
        return self._bucket.seekable(self._key(name))

    def read_beside(self, where: str, max_bytes: int) -> bytes:
        """Always refuses."""
        raise self._nothing_beside(where)

    def check_beside(self, where: str) -> None:
        """Always refuses."""
        raise self._nothing_beside(where)

    def fingerprint(self) -> str:
        """SHA-256 over name, size and ETag."""
        entry = self._bucket.entry(self.key)
        return fingerprint_of("", [(self.name, entry.size, entry.etag)])

    @property
    def _bucket(self) -> Bucket:
        return Bucket(settings=self.settings, name=self.settings.bucket)

    def _key(self, name: str) -> str:
        if name != self.name:
            raise InvalidDataError(f"{shown(name)} is not part of the upload {self.name}: upload it in one file")
        return self.key

    def _nothing_beside(self, where: str) -> InvalidDataError:
        return InvalidDataError(
            f"{shown(where)} lies beside the dataset, and beside the upload {self.name} there are no files: put the "
            "media into the file (data URLs, tar, Parquet), or keep the dataset's folder in s3://"
        )


@dataclass(frozen=True, kw_only=True)
class S3Source:
    """A user's object (``name`` below ``root``) or, where ``name`` is None, everything below the prefix ``root``.

    ``InvalidDataError`` for the service's own bucket, which holds the files of other people.
    """

    settings: StorageSettings = field(repr=False)  # holds the secret key
    bucket: str
    root: str = ""
    name: str | None = None

    def __post_init__(self) -> None:
        user_bucket(self.settings, self.bucket)
        checked_key(self.root)

    @property
    def uri(self) -> str:
        """``s3://bucket/root/name``."""
        return f"s3://{self.bucket}/{self._key(self.name) if self.name else self.root}"

    def names(self) -> list[str]:
        """The one file, or all below the prefix but hidden ones."""
        if self.name:
            return [self.name]
        return [name for name, _, _ in self._entries()]

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return self._bucket.entry(self._key(name)).size

    def stream(self, name: str, start: int = 0, end: int | None = None) -> BinaryIO:
        """A forward-only reader; it goes on by itself where a connection breaks."""
        return self._bucket.stream(self._key(name), start, end)

    def seekable(self, name: str) -> BinaryIO:
        """A reader that asks the store for each range."""
        return self._bucket.seekable(self._key(name))

    def read_beside(self, where: str, max_bytes: int) -> bytes:
        """An object below the prefix."""
        return self._bucket.read(self._key(where), max_bytes)

    def check_beside(self, where: str) -> None:
        """Refuses names that climb out; whether the object is there takes a request."""
        checked_name(where)

    def fingerprint(self) -> str:
        """SHA-256 over name, size and ETag of every file, and over the address of a single one.

        Media beside a single file are not covered: replacing them in place goes unnoticed.
        """
        return fingerprint_of(self.uri if self.name else "", self._entries())

    @property
    def _bucket(self) -> Bucket:
        return user_bucket(self.settings, self.bucket)

    def _entries(self) -> list[tuple[str, int, str]]:
        if self.name:
            entry = self._bucket.entry(self._key(self.name))
            return [(self.name, entry.size, entry.etag)]
        prefix = f"{self.root}/" if self.root else ""
        found = [(entry.key.removeprefix(prefix), entry.size, entry.etag) for entry in self._bucket.entries(prefix)]
        return [(name, size, etag) for name, size, etag in found if not is_hidden(name)]

    def _key(self, name: str) -> str:
        return f"{self.root}/{checked_name(name)}" if self.root else checked_name(name)


def user_bucket(settings: StorageSettings, name: str) -> Bucket:
    """A bucket of somebody's own data; ``InvalidDataError`` for the service's bucket and for what is no bucket."""
    if not BUCKET_NAME.fullmatch(name):
        raise InvalidDataError(f"{shown(name)} is not a bucket's name: write s3://bucket/key")
    if name == settings.bucket:
        raise InvalidDataError(
            f"s3://{name} is the service's own bucket and holds everybody's files: name the upload by its file id, or "
            "copy the data to a bucket of your own"
        )
    return Bucket(settings=settings, name=name)


def split_s3(location: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` address, which is taken literally."""
    bucket, _, key = location.partition("://")[2].partition("/")
    return bucket, checked_key(key)


def _open_s3(location: str, settings: StorageSettings | None) -> S3Source:
    if settings is None:
        raise InvalidDataError(
            f"{shown(location)} needs an object store: set IBLLM_S3_ENDPOINT, IBLLM_S3_ACCESS_KEY and "
            "IBLLM_S3_SECRET_KEY"
        )
    name, key = split_s3(location)
    bucket, root = user_bucket(settings, name), key.rstrip("/")
    if root == key and root:
        folder, _, file = root.rpartition("/")
        try:
            bucket.entry(root)
        except InvalidDataError:
            if not bucket.is_folder(root):
                raise
        else:
            return S3Source(settings=settings, bucket=name, root=folder, name=file)
    if not bucket.is_folder(root):
        raise InvalidDataError(f"there is nothing below {shown(location)}: check bucket and prefix")
    return S3Source(settings=settings, bucket=name, root=root)
