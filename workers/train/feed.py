"""What a rank reads: its micro-batches of each global batch, put together ahead of the training."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.packing import PackedBatch, Sampler
from ibllm_core.model.batch import Batch

STEPS_AHEAD = 3


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step as a rank sees it; ``number`` counts from 1.

    ``num_labels``, ``tokens`` (real ones) and ``positions`` (with padding) are those of the whole global batch.
    """

    number: int
    epoch: int
    is_epochs_last: bool
    rows: tuple[tuple[int, ...], ...]
    micro_batches: tuple[Batch, ...]
    num_labels: int
    tokens: int
    positions: int


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Steps of one rank in their order, which is that of any world size."""

    corpus: Corpus
    sampler: Sampler
    rank: int
    world_size: int
    micro_rows: int
    media_tokens: int
    pad_token: int

    def count(self, max_steps: int | None) -> int:
        """Steps of the whole training."""
        steps = self.sampler.count_steps(self.corpus.lengths(self.media_tokens))
        return steps if max_steps is None else min(steps, max_steps)

    def steps(self, first: int, last: int, *, pin: bool) -> Iterator[Step]:
        """The steps ``first`` to ``last``, collated in a thread; ``pin`` puts them where a GPU can fetch them."""
        ready: queue.Queue[Step | BaseException | None] = queue.Queue(maxsize=STEPS_AHEAD)
        closing = threading.Event()

        def put(item: Step | BaseException | None) -> None:
            while not closing.is_set():
                try:
                    return ready.put(item, timeout=0.2)
                except queue.Full:
                    continue

        def collate_ahead() -> None:
            try:
                for step in self._collated(first, last, pin):
                    if closing.is_set():
                        return
                    put(step)
                put(None)
            except BaseException as error:  # the training's thread raises it
                put(error)

        thread = threading.Thread(target=collate_ahead, name="feed", daemon=True)
        thread.start()
        try:
            while (step := ready.get()) is not None:
                if isinstance(step, BaseException):
                    raise step
                yield step
        finally:
            closing.set()
            thread.join()

    def _collated(self, first: int, last: int, pin: bool) -> Iterator[Step]:
        lengths, tokens = self.corpus.lengths(self.media_tokens), self.corpus.lengths()
        batches = enumerate(self.sampler.batches(lengths), start=1)
        window = islice(batches, first - 1, last + 1)
        number_batch = next(window, None)
        while number_batch is not None and number_batch[0] <= last:
            number, batch = number_batch
            number_batch = next(window, None)
            micro_batches = tuple(self._micro_batches(batch))
            yield Step(
                number=number,
                epoch=batch.epoch,
                is_epochs_last=number_batch is None or number_batch[1].epoch != batch.epoch,
                rows=batch.rows,
                micro_batches=tuple(micro.pin_memory() for micro in micro_batches) if pin else micro_batches,
                num_labels=count_labels(self.corpus, batch.rows),
                tokens=sum(int(tokens[list(row)].sum()) for row in batch.rows),
                positions=len(micro_batches) * self.micro_rows * self.world_size * self.sampler.row_tokens,
            )

    def _micro_batches(self, batch: PackedBatch) -> Iterator[Batch]:
        """As many for each rank, of one shape: collectives and compiled kernels want it. What is short is padding."""
        mine = list(batch.rows[self.rank :: self.world_size])
        rows_a_rank = -(-len(batch.rows) // self.world_size)
        micro_rows = min(self.micro_rows, rows_a_rank)
        for start in range(0, rows_a_rank, micro_rows):
            rows = mine[start : start + micro_rows]
            yield collate(
                self.corpus,
                rows + [()] * (min(micro_rows, rows_a_rank - start) - len(rows)),
                row_tokens=self.sampler.row_tokens,
                pad_token=self.pad_token,
                media_tokens=self.media_tokens,
                epoch=batch.epoch,
            )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Begin a step's random numbers: a function of seed, step and rank, so that a resumed run draws the same."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]))
