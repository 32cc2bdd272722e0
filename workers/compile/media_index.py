"""The distinct features of one dataset in the order of their first row: on disk, so that a million take no memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from workers.compile.identity import mix_key


class MediaIndex:
    """Numbers features from 0; a sample with several media has a feature of its own, their mix."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE features (number INTEGER PRIMARY KEY, key TEXT UNIQUE, media TEXT)")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def number_of(self, media: Sequence[str]) -> int:
        """The number of the feature of these media, a new one where they are met for the first time."""
        key = media[0] if len(media) == 1 else mix_key(tuple(media))
        found = self._db.execute("SELECT number FROM features WHERE key = ?", (key,)).fetchone()
        if found:
            return int(found[0])
        self._db.execute("INSERT INTO features VALUES (?, ?, ?)", (self._count, key, json.dumps(sorted(media))))
        self._count += 1
        return self._count - 1

    def batches(self, size: int) -> Iterator[list[tuple[str, list[str]]]]:
        """Keys with the media that each is made of, in order, ``size`` at a time."""
        rows = self._db.execute("SELECT key, media FROM features ORDER BY number")
        while part := rows.fetchmany(size):
            yield [(key, json.loads(media)) for key, media in part]
