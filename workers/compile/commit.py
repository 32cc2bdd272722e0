"""Bundles as they come in, made durable: first the vectors, then the rows that show them.

A row is committed once all its media are settled, and what is committed needs no ledger any more: a row with a medium
that cannot be used carries the reason. Whatever a dying task took with it is not settled, or leaves a gap in the rows
of its piece: it stays uncommitted, and is read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from workers.compile.feature_store import FeatureStore
from workers.compile.rows import Bundle, PreparedRow
from workers.compile.staging import Block, Staging

PART_MEDIA = 1024
BLOCK_ROWS = 1024


class MediaStates(Protocol):
    """What a committer tells and asks the ledger."""

    def store(self, part: str, keys: Sequence[str]) -> None:
        """Media lie in a part."""

    def refuse(self, reasons: Sequence[tuple[str, str]]) -> None:
        """Media cannot be used."""

    def are_settled(self, keys: Sequence[str]) -> bool:
        """Whether media are stored or refused."""

    def reasons(self, keys: Sequence[str]) -> dict[str, str]:
        """Why media cannot be used, of those that cannot."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    input: int
    block: Block
    rows: tuple[PreparedRow, ...]


class Committer:
    """Takes bundles in the order of their rows; a bundle of a piece that has a gap before it is left for later.

    ``staging`` has a place an input; ``resume`` where (input, piece) was left, as ``resume_points`` says it.
    """

    def __init__(
        self,
        ledger: MediaStates,
        features: FeatureStore,
        staging: Sequence[Staging],
        resume: Mapping[tuple[int, int], tuple[int, bool]],
    ) -> None:
        self._ledger = ledger
        self._features = features
        self._staging = staging
        self._expected = {place: following for place, (following, _) in resume.items()}
        self._vectors: dict[str, np.ndarray] = {}
        self._open: list[PreparedRow] = []
        self._open_at: tuple[int, int, int] | None = None  # input, piece, first row
        self._waiting: list[_Waiting] = []

    def add(self, bundle: Bundle) -> None:
        """Take a bundle; writes to the object store once enough has come together."""
        if bundle.bad:
            self._ledger.refuse(list(bundle.bad.items()))
        self._vectors |= bundle.vectors
        place = bundle.input, bundle.piece
        if bundle.first != self._expected.get(place, 0):
            return
        self._expected[place] = bundle.first + len(bundle.rows)
        if self._open_at is not None and self._open_at[:2] != place:
            self._close(ends_piece=False)
        if self._open_at is None:
            self._open_at = *place, bundle.first
        self._open += bundle.rows
        is_block = bundle.ends_piece or len(self._open) >= BLOCK_ROWS
        if is_block:
            self._close(ends_piece=bundle.ends_piece)
        if len(self._vectors) >= PART_MEDIA or (bundle.ends_piece and self._vectors):
            self._flush()
        elif is_block:
            self._commit_settled()

    def finish(self) -> None:
        """Write what is left; nothing more comes."""
        if self._open_at is not None:
            self._close(ends_piece=False)
        self._flush()

    def _flush(self) -> None:
        """Write the vectors that came in, and then all rows that only waited for them."""
        if self._vectors:
            keys = sorted(self._vectors)
            part = self._features.add(keys, np.stack([self._vectors[key] for key in keys]))
            self._ledger.store(part, keys)
            self._vectors.clear()
        self._commit_settled()

    def _commit_settled(self) -> None:
        """Write the blocks that wait for nothing more; within a piece none before the one that stands before it."""
        held: set[tuple[int, int]] = set()
        waiting = []
        for block in self._waiting:
            piece = block.input, block.block.piece
            keys = sorted({key for row in block.rows for key in row.media})
            if piece in held or not self._ledger.are_settled(keys):
                held.add(piece)
                waiting.append(block)
                continue
            reasons = self._ledger.reasons(keys)
            self._staging[block.input].write(block.block, [_judged(row, reasons) for row in block.rows])
        self._waiting = waiting

    def _close(self, *, ends_piece: bool) -> None:
        assert self._open_at is not None
        number, piece, first = self._open_at
        block = Block(piece=piece, first=first, next=first + len(self._open), ends_piece=ends_piece)
        self._waiting.append(_Waiting(input=number, block=block, rows=tuple(self._open)))
        self._open, self._open_at = [], None


def _judged(row: PreparedRow, reasons: dict[str, str]) -> PreparedRow:
    """A row with one medium that cannot be used is a bad row."""
    reason = next((reasons[key] for key in row.media if key in reasons), "")
    return replace(row, reason=reason, sample=None) if reason else row
