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
            "CREATE TABLE media (key TEXT PRIMARY KEY, state INTEGER, claimer TEXT, part TEXT, place INTEGER,"
            " reason TEXT) WITHOUT ROWID"
        )

    def claim(self, keys: Sequence[str], claimer: str) -> list[bool]:
        """For each key whether the claimer has to encode it: it is the first to see it, or it was.

        A task that is run again after its output was lost claims the same, and so gives the same output again.
        """
        with self._db:
            self._db.execute("BEGIN")
            made = "INSERT OR IGNORE INTO media (key, state, claimer) VALUES (?, ?, ?)"
            self._db.executemany(made, [(key, CLAIMED, claimer) for key in keys])
        return [row[0] == claimer for row in self._select("claimer", keys)]

    def store(self, part: str, keys: Iterable[str]) -> None:
        """Note that media lie in a part, in this order."""
        self._settle([(key, STORED, part, place, None) for place, key in enumerate(keys)])

    def refuse(self, reasons: Iterable[tuple[str, str]]) -> None:
        """Note media that cannot be used, with the reason of each."""
        self._settle([(key, BAD, None, None, reason) for key, reason in reasons])

    def are_settled(self, keys: Sequence[str]) -> bool:
        """Whether each of the media is either stored or refused."""
        return all(row is not None and row[0] != CLAIMED for row in self._select("state", keys))

    def release(self) -> int:
        """Forget who claimed what, and all claims that came to nothing; returns how many there were of these.

        For another pass, whose chunks have the same names.
        """
        self._db.execute("UPDATE media SET claimer = NULL WHERE state != ?", (CLAIMED,))
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

    def _settle(self, rows: Sequence[tuple[str, int, str | None, int | None, str | None]]) -> None:
        settled = (
            "INSERT INTO media (key, state, part, place, reason) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
            " state = excluded.state, part = excluded.part, place = excluded.place, reason = excluded.reason"
        )
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany(settled, rows)
