"""The store's methods on a folder: training without a service keeps what it writes on the machine's own disk."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ibllm_core.errors import ObjectExistsError, ObjectMissingError, StorageError
from ibllm_core.storage import CHUNK, Store


class LocalStore(Store):
    """Keys are paths below ``root``; a prefix that is in ``mounts`` is another folder. Objects appear whole or not."""

    def __init__(self, root: Path, mounts: Mapping[str, Path] | None = None) -> None:
        self.root = root
        self._mounts = dict(mounts or {})

    def uri(self, key: str) -> str:
        """The file's path."""
        return str(self._path(key))

    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        """As ``Store``."""
        with self._writing(key):
            partial = self._partial(key)
            partial.write_bytes(body)
            self._publish(partial, key, only_new)

    def upload(self, key: str, source: BinaryIO) -> None:
        """As ``Store``."""
        with self._writing(key):
            partial = self._partial(key)
            with partial.open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK)
            self._publish(partial, key, only_new=False)

    def get(self, key: str) -> bytes:
        """As ``Store``."""
        return b"".join(self.stream(key))

    def stream(self, key: str) -> Iterator[bytes]:
        """As ``Store``."""
        try:
            with self._path(key).open("rb") as source:
                while chunk := source.read(CHUNK):
                    yield chunk
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissingError(f"{self.uri(key)} does not exist", key=key) from error
        except OSError as error:
            raise StorageError(f"{self.uri(key)} cannot be read: {error}", key=key) from error

    def exists(self, key: str) -> bool:
        """As ``Store``."""
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        """As ``Store``."""
        self._path(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> list[str]:
        """As ``Store``."""
        top = prefix[: prefix.rfind("/") + 1]  # below it are all keys that begin with the prefix
        folder = self._path(top.rstrip("/"))
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        keys = (f"{top}{path.relative_to(folder).as_posix()}" for path in files)
        return sorted(key for key in keys if key.startswith(prefix))

    def _path(self, key: str) -> Path:
        for prefix, folder in self._mounts.items():
            if key == prefix or key.startswith(f"{prefix}/"):
                return folder / key.removeprefix(prefix).lstrip("/")
        return self.root / key

    def _partial(self, key: str) -> Path:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self.uri(key)} cannot be written: {error}", key=key) from error

    def _publish(self, partial: Path, key: str, only_new: bool) -> None:
        path = self._path(key)
        if not only_new:
            partial.replace(path)
            return
        try:
            os.link(partial, path)
        except FileExistsError as error:
            raise ObjectExistsError(f"{self.uri(key)} exists already", key=key) from error
        finally:
            partial.unlink()
