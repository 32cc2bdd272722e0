"""The order of samples, their packing into rows, and the rows of a step: pure functions.

The order is a function of (sizes, weights, seed, epoch), the packing of the order, the global batch of the packing; a
rank takes its slice of a global batch. Another world size therefore sees the same global batches.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ibllm_core.errors import InvalidSpecError

POOL = 1024  # samples that a row may choose from; more fill no better
EXACT_TOKENS = 512  # room of a row that is filled by exact search; longest first is as good before


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """One optimizer step's rows: for each row the indices of its samples, in their order in the row."""

    epoch: int
    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """What a training reads and in which order, but for the lengths of the samples.

    ``weights`` say how often an epoch passes over each of the datasets, whose ``sizes`` are in samples;
    ``InvalidSpecError`` for one that takes nothing of its dataset.
    """

    sizes: Sequence[int]
    weights: Sequence[float]
    seed: int
    epochs: int
    row_tokens: int
    rows_per_step: int

    def __post_init__(self) -> None:
        for size, weight in zip(self.sizes, self.weights, strict=True):
            if size and not _seen(size, weight, self.epochs):
                raise InvalidSpecError(
                    f"a weight of {weight:g} takes none of a dataset's {size} samples in {self.epochs} epochs: raise "
                    "the weight, or leave the dataset out",
                )

    def batches(self, lengths: np.ndarray) -> Iterator[PackedBatch]:
        """The global batches of a whole training; the last, short one of an epoch is kept."""
        for epoch in range(self.epochs):
            rows = pack(order_of(self.sizes, self.weights, self.seed, epoch), lengths, self.row_tokens)
            # Packing takes long samples first; mix the rows again.
            rows = [rows[i] for i in np.random.default_rng([self.seed, epoch, 1]).permutation(len(rows))]
            for start in range(0, len(rows), self.rows_per_step):
                yield PackedBatch(epoch=epoch, rows=tuple(rows[start : start + self.rows_per_step]))

    def count_steps(self, lengths: np.ndarray) -> int:
        """Optimizer steps of a training, for the schedule and the time left."""
        return sum(1 for _ in self.batches(lengths))


def order_of(sizes: Sequence[int], weights: Sequence[float], seed: int, epoch: int) -> np.ndarray:
    """The samples of an epoch, in their order; samples of all datasets are numbered one after the other.

    A dataset is passed over in permutations, one after the other, of which an epoch takes its weight's worth from where
    the epoch before stopped: no sample is seen again before all others of its dataset were.
    """
    chosen = []
    first = 0
    for number, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        start, end = _seen(size, weight, epoch), _seen(size, weight, epoch + 1)
        for turn in range(start // size, -(-end // size)) if size else ():
            permutation = np.random.default_rng([seed, number, turn, 2]).permutation(size)
            chosen.append(first + permutation[max(0, start - turn * size) : end - turn * size])
        first += size
    samples = np.concatenate([np.empty(0, np.int64), *chosen])
    mixed: np.ndarray = samples[np.random.default_rng([seed, epoch]).permutation(len(samples))]
    return mixed


def pack(order: Sequence[int] | np.ndarray, lengths: np.ndarray, row_tokens: int) -> list[tuple[int, ...]]:
    """Pack samples into rows of at most ``row_tokens`` tokens, as full as what lies in the pool allows.

    A row begins with the longest samples of a pool that follows the order, and ends with those that fill its last room
    best, found exactly. A sample longer than a row must have been refused before (``ValueError`` here).
    """
    samples, sizes = np.asarray(order, dtype=np.int64), np.asarray(lengths)[order]
    if len(samples) and sizes.max() > row_tokens:
        longest = samples[sizes.argmax()]
        raise ValueError(f"sample {longest} has {sizes.max()} tokens, a row only {row_tokens}: raise row_tokens")
    pool = _Pool()
    rows = []
    waiting = zip(sizes.tolist(), samples.tolist(), strict=True)
    pool.add(islice(waiting, POOL))
    while pool.lengths:
        row: list[int] = []
        room = row_tokens
        while room > EXACT_TOKENS and (size := pool.longest(room)):
            row.append(pool.take(size))
            room -= size
        if not row:
            size = pool.lengths[-1]
            row.append(pool.take(size))
            room -= size
        for size in _fill(room, pool):
            row.append(pool.take(size))
        rows.append(tuple(row))
        pool.add(islice(waiting, len(row)))
    return rows


class _Pool:
    """Samples by their length; those of one length leave in the order in which they came."""

    def __init__(self) -> None:
        self.lengths: list[int] = []  # sorted
        self._samples: dict[int, deque[int]] = {}

    def add(self, samples: Iterable[tuple[int, int]]) -> None:
        for length, sample in samples:
            if length not in self._samples:
                self._samples[length] = deque()
                insort(self.lengths, length)
            self._samples[length].append(sample)

    def take(self, length: int) -> int:
        samples = self._samples[length]
        sample = samples.popleft()
        if not samples:
            del self._samples[length]
            del self.lengths[bisect_left(self.lengths, length)]
        return sample

    def count(self, length: int) -> int:
        return len(self._samples[length])

    def longest(self, room: int) -> int:
        """The greatest length that fits, 0 for none."""
        place = bisect_right(self.lengths, room)
        return self.lengths[place - 1] if place else 0


def _fill(room: int, pool: _Pool) -> list[int]:
    """The lengths of samples that fill ``room`` best: subset sums as the bits of an integer, longest first."""
    whole = (1 << room + 1) - 1
    reached, steps = 1, []
    for length in reversed(pool.lengths[: bisect_right(pool.lengths, room)]):
        steps.append((length, reached))
        for _ in range(min(pool.count(length), room // length)):
            reached |= reached << length & whole
        if reached >> room & 1:
            break
    chosen, total = [], reached.bit_length() - 1
    for length, before in reversed(steps):
        while not before >> total & 1:
            chosen.append(length)
            total -= length
    return chosen


def _seen(size: int, weight: float, epochs: int) -> int:
    """Samples of a dataset that the first epochs see."""
    return round(size * weight * epochs)
