"""The order of samples, their packing into rows, and the rows of a step: pure functions.

The order is a function of (dataset, seed, epoch), the packing of the order, the global batch of the packing; a rank
takes its slice of a global batch. Another world size therefore sees the same global batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

OPEN_ROWS = 32  # rows that a sample may still join; more fill better, at the price of order


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """One optimizer step's rows: for each row the indices of its samples, in their order in the row."""

    epoch: int
    rows: tuple[tuple[int, ...], ...]


def order_of(num_samples: int, seed: int, epoch: int) -> list[int]:
    """The permutation of an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(num_samples).tolist()  # type: ignore[no-any-return]


def pack(order: Sequence[int], lengths: Sequence[int], row_tokens: int) -> list[tuple[int, ...]]:
    """Best-fit packing of samples into rows of at most ``row_tokens`` tokens, in one pass over the order.

    A sample longer than a row must have been refused before (``ValueError`` here).
    """
    done: list[tuple[int, ...]] = []
    open_rows: list[tuple[int, list[int]]] = []
    for index in order:
        length = lengths[index]
        if length > row_tokens:
            raise ValueError(f"sample {index} has {length} tokens, a row only {row_tokens}: raise row_tokens")
        fitting = [row for row in open_rows if row[0] >= length]
        if fitting:
            best = min(fitting, key=lambda row: row[0])
            open_rows.remove(best)
            open_rows.append((best[0] - length, [*best[1], index]))
        else:
            if len(open_rows) == OPEN_ROWS:
                fullest = min(open_rows, key=lambda row: row[0])
                open_rows.remove(fullest)
                done.append(tuple(fullest[1]))
            open_rows.append((row_tokens - length, [index]))
    return done + [tuple(members) for _, members in open_rows]


def batches(
    lengths: Sequence[int], *, seed: int, epochs: int, row_tokens: int, rows_per_step: int
) -> Iterator[PackedBatch]:
    """The global batches of a whole training; the last, short one of an epoch is kept."""
    for epoch in range(epochs):
        rows = pack(order_of(len(lengths), seed, epoch), lengths, row_tokens)
        # Best fit finishes full rows first and leaves the sparse ones for the end; mix them again.
        rows = [rows[i] for i in np.random.default_rng([seed, epoch, 1]).permutation(len(rows))]
        for start in range(0, len(rows), rows_per_step):
            yield PackedBatch(epoch=epoch, rows=tuple(rows[start : start + rows_per_step]))


def count_steps(lengths: Sequence[int], *, seed: int, epochs: int, row_tokens: int, rows_per_step: int) -> int:
    """Optimizer steps of a training, for the schedule and the time left."""
    return sum(
        1 for _ in batches(lengths, seed=seed, epochs=epochs, row_tokens=row_tokens, rows_per_step=rows_per_step)
    )
