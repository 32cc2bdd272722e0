"""The object store. A prefix becomes real by its manifest, which is written last and only once."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ibllm_core.contract import layout
from ibllm_core.errors import IntegrityError, ObjectExistsError, ObjectMissingError, StorageError
from ibllm_core.settings import StorageSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

CHUNK = 1 << 20
MIN_PART_BYTES = 5 << 20  # S3's, of all parts of an object but the last
MAX_PARTS = 10_000
COPIES_AT_ONCE = 4


class Store(ABC):
    """Objects under keys, and folders under prefixes; every method raises ``StorageError`` or one of its children."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """Where an object is, for people."""

    @abstractmethod
    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        """Write an object; with ``only_new`` raise ``ObjectExistsError`` where it exists already."""

    @abstractmethod
    def upload(self, key: str, source: BinaryIO) -> None:
        """Stream a file into an object."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Read a whole object; ``ObjectMissingError`` where there is none."""

    @abstractmethod
    def stream(self, key: str) -> Iterator[bytes]:
        """Read an object in pieces of at most 1 MiB."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether an object is there."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; removing what is not there is no error."""

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """The keys below a prefix, in order."""

    def put_json(self, key: str, value: Any) -> None:
        """Write an object as JSON."""
        self.put(key, json.dumps(value, indent=1).encode())

    def get_json(self, key: str) -> Any:
        """Read an object as JSON."""
        return json.loads(self.get(key))

    def upload_folder(self, prefix: str, folder: Path, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        """Upload every file of a folder and then its manifest, which is returned.

        Whoever finds the manifest finds every file complete. Where the manifest exists already, that one stands
        and is returned, since a prefix never changes once it is real.
        """
        files = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            with path.open("rb") as source:
                self.upload(f"{prefix}/{name}", source)
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        manifest = {**(extra or {}), "files": files}
        try:
            self.put(layout.manifest(prefix), json.dumps(manifest, indent=1).encode(), only_new=True)
        except ObjectExistsError:
            return self.manifest(prefix)
        return manifest

    def delete_folder(self, prefix: str) -> None:
        """Remove all below a prefix, its manifest first: what is half deleted does not exist."""
        self.delete(layout.manifest(prefix))
        for key in self.list(f"{prefix}/"):
            self.delete(key)

    def manifest(self, prefix: str) -> dict[str, Any]:
        """The manifest of a prefix; ``ObjectMissingError`` where the prefix does not exist."""
        manifest: dict[str, Any] = self.get_json(layout.manifest(prefix))
        return manifest

    def download_folder(self, prefix: str, cache: Path, *, wanted: Callable[[str], bool] = lambda name: True) -> Path:
        """Fetch a prefix into ``cache`` once, verified against its manifest, and return the folder.

        A second call finds the folder and asks the store for the manifest only; ``wanted`` chooses among the files by
        name. ``IntegrityError`` names the file whose bytes are wrong.
        """
        manifest = self.manifest(prefix)
        folder = cache / prefix
        for name, expected in manifest["files"].items():
            path = folder / name
            if not wanted(name) or (path.exists() and path.stat().st_size == expected["bytes"]):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + f".{os.getpid()}-{id(self)}.part")
            with partial.open("wb") as target:
                for chunk in self.stream(f"{prefix}/{name}"):
                    target.write(chunk)
            if sha256_of(partial) != expected["sha256"]:
                partial.unlink()
                raise IntegrityError(
                    f"{self.uri(prefix)}/{name} does not have the checksum of its manifest: upload it again", key=name
                )
            partial.replace(path)
        return folder


class ObjectStore(Store):
    """A store in one bucket."""

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        self.bucket = settings.bucket
        self.endpoint = settings.endpoint
        self._s3 = s3_client(settings.endpoint, settings.access_key, settings.secret_key)

    def uri(self, key: str) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        """Write an object; with ``only_new`` raise ``ObjectExistsError`` where it exists already."""
        with _translated(key):
            if only_new:
                self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*")
            else:
                self._s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def upload(self, key: str, source: BinaryIO) -> None:
        """Stream a file into an object, in parts where it is large."""
        with _translated(key):
            self._s3.upload_fileobj(source, self.bucket, key)

    def get(self, key: str) -> bytes:
        """Read a whole object."""
        with _translated(key):
            return self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def stream(self, key: str) -> Iterator[bytes]:
        """Read an object in pieces of at most 1 MiB."""
        with _translated(key):
            yield from self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(CHUNK)

    def lines(self, key: str) -> Iterator[bytes]:
        """Read an object line by line, without holding it in memory."""
        with _translated(key):
            yield from self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].iter_lines(CHUNK)

    def exists(self, key: str) -> bool:
        """Whether an object is there."""
        try:
            with _translated(key):
                self._s3.head_object(Bucket=self.bucket, Key=key)
        except ObjectMissingError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object; removing what is not there is no error."""
        with _translated(key):
            self._s3.delete_object(Bucket=self.bucket, Key=key)

    def join(self, key: str, parts: Sequence[str]) -> None:
        """Make one object of others, in their order, without their bytes leaving the store.

        At most ``MAX_PARTS``, and all but the last of at least ``MIN_PART_BYTES``; ``ObjectMissingError`` names a part
        that is not there. Nobody else may be writing ``key``.
        """
        self.drop_unfinished(key)
        with _translated(key):
            upload = self._s3.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        try:
            with ThreadPoolExecutor(COPIES_AT_ONCE) as threads:
                numbers = range(1, len(parts) + 1)
                tags = list(threads.map(lambda number: self._copy(key, upload, number, parts[number - 1]), numbers))
            listing: list[CompletedPartTypeDef] = [
                {"PartNumber": number, "ETag": tag} for number, tag in zip(numbers, tags, strict=True)
            ]
            with _translated(key):
                self._s3.complete_multipart_upload(
                    Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": listing}
                )
        except StorageError:
            self.drop_unfinished(key)
            raise

    def _copy(self, key: str, upload: str, number: int, part: str) -> str:
        with _translated(part):
            copied = self._s3.upload_part_copy(
                Bucket=self.bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                CopySource={"Bucket": self.bucket, "Key": part},
            )
        return copied["CopyPartResult"]["ETag"]

    def drop_unfinished(self, key: str) -> None:
        """Remove what was stored of objects under ``key`` that were never finished, since their writer died."""
        with _translated(key):
            pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=key)
            for upload in [upload for page in pages for upload in page.get("Uploads", [])]:
                if upload["Key"] == key:
                    self._s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload["UploadId"])

    def list(self, prefix: str) -> list[str]:
        """The keys below a prefix, in order."""
        with _translated(prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return [item["Key"] for page in pages for item in page.get("Contents", [])]


def s3_client(endpoint: str, access_key: str, secret_key: str) -> S3Client:
    """A client of one object store, from a session of its own: the default one is not for threads."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 8, "mode": "standard"}, s3={"addressing_style": "path"}),
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """One hash for all files of a manifest: names and checksums in order."""
    listing = "".join(f"{name} {entry['sha256']}\n" for name, entry in sorted(manifest["files"].items()))
    return hashlib.sha256(listing.encode()).hexdigest()


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turn boto's exceptions into ours, once, here."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("404", "NoSuchKey", "NotFound"):
            raise ObjectMissingError(f"the object store has no {key}", key=key) from error
        if code in ("412", "PreconditionFailed"):
            raise ObjectExistsError(f"{key} exists already", key=key) from error
        raise StorageError(f"the object store refused {key}: {error}", key=key) from error
    except BotoCoreError as error:
        raise StorageError(f"the object store cannot be reached for {key}: {error}", key=key) from error
