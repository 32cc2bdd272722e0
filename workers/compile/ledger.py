"""Which media were seen, are encoded, or cannot be used: on disk, so that a million of them take no memory.

One ledger serves all tasks of a compile run, as a Ray actor; it knows nothing of Ray itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

CLAIMED, STORED, BAD = 0, 1, 2


class Ledger:
    """Media by their key, each claimed by whoever sees it first, then stored in a part or found bad."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE media (key TEXT PRIMARY KEY, state INTEGER, part TEXT, place INTEGER, reason TEXT)"
            " WITHOUT ROWID"
        )

    def claim(self, keys: Sequence[str]) -> list[bool]:
        """For each key whether the caller is the first to see it, and so has to encode it."""
        found = []
        with self._db:
            self._db.execute("BEGIN")
            for key in keys:
                made = self._db.execute("INSERT OR IGNORE INTO media VALUES (?, ?, NULL, NULL, NULL)", (key, CLAIMED))
                found.append(made.rowcount == 1)
        return found

    def store(self, part: str, keys: Iterable[str]) -> None:
        """Note that media lie in a part, in this order."""
        rows = [(key, STORED, part, place, None) for place, key in enumerate(keys)]
        self._write(rows)

    def refuse(self, reasons: Iterable[tuple[str, str]]) -> None:
        """Note media that cannot be used, with the reason of each."""
        self._write([(key, BAD, None, None, reason) for key, reason in reasons])

    def are_settled(self, keys: Sequence[str]) -> bool:
        """Whether each of the media is either stored or refused."""
        return all(row is not None and row[0] != CLAIMED for row in self._select("state", keys))

    def release(self) -> int:
        """Forget all claims that came to nothing, since a task died over them; returns how many there were."""
        return self._db.execute("DELETE FROM media WHERE state = ?", (CLAIMED,)).rowcount

    def reasons(self, keys: Sequence[str]) -> dict[str, str]:
        """Why media cannot be used, of those that cannot."""
        found = self._select("reason", keys)
        return {key: row[0] for key, row in zip(keys, found, strict=True) if row and row[0] is not None}

    def places(self, keys: Sequence[str]) -> list[tuple[str, int]]:
        """The part that holds each stored medium, and its place in it."""
        return [(part, place) for part, place in self._select("part, place", keys)]

    def _select(self, columns: str, keys: Sequence[str]) -> list[Any]:
        query = f"SELECT {columns} FROM media WHERE key = ?"  # noqa: S608 (names of ours)
        return [self._db.execute(query, (key,)).fetchone() for key in keys]

    def _write(self, rows: Sequence[tuple[str, int, str | None, int | None, str | None]]) -> None:
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO media VALUES (?, ?, ?, ?, ?)", rows)
