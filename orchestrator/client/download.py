"""Bytes of the service as files of this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.client.errors import NotReachableError

Progress = Callable[[int, int], None]  # bytes so far, bytes in all


def untold(_done: int, _total: int) -> None:
    """Tell nobody how far it is."""


def save(chunks: Iterable[bytes], path: Path, *, num_bytes: int, sha256: str | None, progress: Progress) -> Path:
    """Write a file, which appears under its name when all of it is there and is what it should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    digest, done = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress(done, num_bytes)
        if done != num_bytes or sha256 not in (None, digest.hexdigest()):
            raise NotReachableError(f"{path.name} did not arrive as it was sent: download it again")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
