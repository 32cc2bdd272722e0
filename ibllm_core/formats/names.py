"""Names of files inside a source, as rows and users write them: untrusted until they passed here."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable

from ibllm_core.errors import InvalidDataError

MAX_NAMES = 1_000_000  # about 100 MB of names
SHOWN = 200


def checked_name(name: str) -> str:
    """A relative POSIX path without its ``.`` components.

    ``InvalidDataError`` for what is absolute, climbs out, is empty, or cannot be a file's name.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or not _is_text(name):
        raise InvalidDataError(
            f"{shown(name)} is not a path below the dataset's folder: write it relative to that folder, without '..'"
        )
    return "/".join(parts)


def checked_key(key: str) -> str:
    """An object's key or prefix as it is, refusing components that HTTP clients would resolve."""
    if any(part in (".", "..") for part in key.split("/")) or not _is_text(key):
        raise InvalidDataError(f"{shown(key)} is not a key of an object: write it without '.' and '..'")
    return key


def check_number(names: int, uri: str) -> None:
    """Refuse folders whose listing would not fit in memory."""
    if names > MAX_NAMES:
        raise InvalidDataError(
            f"{uri} holds more than {MAX_NAMES:,} files: pack the media into tar files (WebDataset) or Parquet"
        )


def is_below(location: str, prefixes: Iterable[str]) -> bool:
    """Whether an address or a path lies below one of some prefixes, by whole parts of its path."""
    if location.startswith("/"):
        location = posixpath.normpath(location)
    return any(location == prefix or location.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)


def is_hidden(name: str) -> bool:
    """Whether a component begins with a dot, as the leavings of editors and desktops do."""
    return any(part.startswith(".") for part in name.split("/"))


def fingerprint_of(place: str, entries: Iterable[tuple[str, int, str]]) -> str:
    """SHA-256 over (name, size, checksum) of each file.

    ``place`` tells apart datasets whose media lie beside them and are no part of the entries; empty otherwise.
    """
    return hashlib.sha256(json.dumps([place, *sorted(entries)]).encode()).hexdigest()


def shown(name: str) -> str:
    """A name for a message, however long and strange it is."""
    return repr(name if len(name) <= SHOWN else name[:SHOWN] + "…")


def too_large(where: str, max_bytes: int, size: int | None = None) -> InvalidDataError:
    """The error for a file of more than ``max_bytes``."""
    found = "more" if size is None else f"{size:,} bytes"
    return InvalidDataError(
        f"{where} has {found}, at most {max_bytes:,} bytes are read: shrink the file, or leave the row out"
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return "\0" not in name
