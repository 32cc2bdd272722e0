"""Ranged reads of one bucket. Clients live in the process, not in the objects, which therefore pickle."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError

from ibllm_core.errors import InvalidDataError, ObjectMissingError, StorageError
from ibllm_core.formats.names import check_number, shown, too_large
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import s3_client

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

BUFFER = 1 << 18
READ_TRIES = 3  # a stream that breaks goes on from where it was; requests have boto's own retries
MISSING = ("404", "NoSuchKey", "NotFound", "NoSuchBucket")
FORBIDDEN = ("403", "AccessDenied")
CHANGED = ("412", "PreconditionFailed")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object as the store lists it; size in bytes."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket of the store that ``settings`` name.

    ``StorageError`` where the store cannot be reached. What is missing or may not be read is the user's to mend
    (``InvalidDataError``), except in the service's own bucket, where it is ``ObjectMissingError`` or ``StorageError``.
    """

    settings: StorageSettings = field(repr=False)  # holds the secret key
    name: str

    def uri(self, key: str) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.name}/{key}"

    def entry(self, key: str) -> Entry:
        """One object."""
        with self._translated(key):
            found = self._client.head_object(Bucket=self.name, Key=key)
        return Entry(key=key, size=found["ContentLength"], etag=found["ETag"])

    def entries(self, prefix: str) -> list[Entry]:
        """All objects below a prefix, sorted by key, without the empty ones that stand for folders."""
        found: list[Entry] = []
        with self._translated(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):
                        found.append(Entry(key=item["Key"], size=item["Size"], etag=item["ETag"]))
                check_number(len(found), self.uri(prefix))
        return sorted(found, key=lambda entry: entry.key)

    def is_folder(self, prefix: str) -> bool:
        """Whether there are objects below ``prefix/``, or anywhere for an empty prefix."""
        with self._translated(prefix):
            page = self._client.list_objects_v2(Bucket=self.name, Prefix=f"{prefix}/" if prefix else "", MaxKeys=1)
        return bool(page.get("Contents"))

    def stream(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        """One request for the bytes ``start`` to ``end``, read forward."""
        return self._reader(key, start, end, is_forward=True)

    def seekable(self, key: str) -> BinaryIO:
        """A request for each read, wherever it is."""
        return self._reader(key, 0, None, is_forward=False)

    def read(self, key: str, max_bytes: int) -> bytes:
        """A whole object; ``InvalidDataError`` where it is larger than ``max_bytes``."""
        with self._translated(key):
            answer = self._client.get_object(Bucket=self.name, Key=key)
            with answer["Body"] as body:
                if answer["ContentLength"] > max_bytes:
                    raise too_large(self.uri(key), max_bytes, answer["ContentLength"])
                return body.read()

    def open_range(self, entry: Entry, start: int, end: int) -> StreamingBody:
        """The bytes ``start`` to ``end`` of an object as it was listed; refuses one that changed since."""
        with self._translated(entry.key):
            return self._client.get_object(
                Bucket=self.name, Key=entry.key, Range=f"bytes={start}-{end - 1}", IfMatch=entry.etag
            )["Body"]

    @property
    def _client(self) -> S3Client:
        settings = self.settings
        return _client(settings.endpoint, settings.access_key, settings.secret_key, os.getpid())

    def _reader(self, key: str, start: int, end: int | None, *, is_forward: bool) -> BinaryIO:
        entry = self.entry(key)
        end = entry.size if end is None else min(end, entry.size)
        return io.BufferedReader(_ObjectReader(self, entry, start, end, is_forward=is_forward), BUFFER)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        place, is_own = shown(self.uri(key)), self.name == self.settings.bucket
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in CHANGED:
                raise InvalidDataError(f"{place} was replaced while it was read: start again") from error
            if code in MISSING and is_own:
                raise ObjectMissingError(f"the object store has no {place}", key=key) from error
            if code in MISSING:
                raise InvalidDataError(f"there is no {place}: check bucket and key") from error
            if code in FORBIDDEN and not is_own:
                raise InvalidDataError(
                    f"the service may not read {place}: let its access key read the bucket"
                ) from error
            raise StorageError(f"the object store refused {place}: {error}", key=key) from error
        except BotoCoreError as error:
            raise StorageError(f"the object store cannot be reached for {place}: {error}", key=key) from error


class _ObjectReader(io.RawIOBase):
    """A range of an object; forward readers keep one request open, others ask for each read."""

    def __init__(self, bucket: Bucket, entry: Entry, start: int, end: int, *, is_forward: bool) -> None:
        super().__init__()
        self._bucket = bucket
        self._entry = entry
        self._position = start
        self._end = end
        self._is_forward = is_forward
        self._body: StreamingBody | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return not self._is_forward

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._is_forward:
            raise io.UnsupportedOperation("this reader goes forward only")
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), self._end - self._position)
        if wanted <= 0:
            return 0
        content = self._read(wanted)
        target[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, wanted: int) -> bytes:
        for tries_left in reversed(range(READ_TRIES)):
            if self._body is None:
                end = self._end if self._is_forward else self._position + wanted
                self._body = self._bucket.open_range(self._entry, self._position, end)
            try:
                content = self._body.read(wanted)
            except BotoCoreError as error:
                self._drop()
                if not tries_left:
                    uri = self._bucket.uri(self._entry.key)
                    raise StorageError(f"the object store stopped sending {uri}: {error}") from error
                continue
            if not self._is_forward:
                self._drop()
            return content
        raise AssertionError("the last try returns or raises")

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


@lru_cache(maxsize=16)
def _client(endpoint: str, access_key: str, secret_key: str, _process: int) -> S3Client:
    """One client for the threads of a process; a forked child must not share its parent's connections."""
    return s3_client(endpoint, access_key, secret_key)
