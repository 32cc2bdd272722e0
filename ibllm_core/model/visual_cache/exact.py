"""Exact search on the CPU.

Shape suffixes: N vectors, B vectors of a slab, S queries, K neighbours, F features, P pairs of a query and a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import numpy as np
import torch
from torch import Tensor

# fp16 becomes fp32 in pieces that stay in a core's cache: pieces of 64 MB take 2.5 times as long.
PIECE_BYTES = 2 << 20
SLAB_ROWS = 8192  # rows whose scores are looked at together
SLABS_A_THREAD = 4  # searched before the floor is raised
MAX_THREADS = 8  # more than the memory's bandwidth feeds
QUERIES_AT_ONCE = 64
RESCORED_BYTES = 1 << 20


def nearest(vectors_NF: Tensor, queries_SF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest inner products of fp32 queries with fp16 vectors: fp32 scores and int64 numbers, best first.

    Two passes: fp32 products find every vector that may belong to the answer, by the bound on their rounding, and fp64
    products of those alone decide. So the answer depends neither on the order in which a matrix product adds up nor on
    where a vector lies, and equal vectors score equally: of equal scores the lower number comes first. It takes about
    25 MB a thread beyond the answer (at most 8 threads, 1024 features), for any number of vectors. Many thousand
    copies of one of the nearest vectors cost a fp64 product each.
    """
    queries_SF = queries_SF.detach()
    best_scores = np.full((len(queries_SF), k), -np.inf, dtype=np.float32)
    best_numbers = np.full((len(queries_SF), k), len(vectors_NF), dtype=np.int64)
    num_threads = min(torch.get_num_threads(), MAX_THREADS)
    with _single_threaded_pool(num_threads) as pool:
        for first in range(0, len(queries_SF), QUERIES_AT_ONCE):
            part = slice(first, first + QUERIES_AT_ONCE)
            best = best_scores[part], best_numbers[part]
            for start in range(0, len(vectors_NF), num_threads * SLABS_A_THREAD * SLAB_ROWS):
                end = min(start + num_threads * SLABS_A_THREAD * SLAB_ROWS, len(vectors_NF))
                search = _SlabSearch(vectors_NF, queries_SF[part], k, best[0][:, -1])
                for found in pool.map(search, range(start, end, SLAB_ROWS)):
                    best = _merged(*best, *found)
            best_scores[part], best_numbers[part] = best
    return torch.from_numpy(best_scores), torch.from_numpy(best_numbers)


@contextmanager
def _single_threaded_pool(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose torch operations do not spread over threads of their own.

    Torch's way, all threads at one small operation, makes all wait for one that another process has displaced: with the
    processors busy elsewhere, a search of a million vectors took 2 to 10 s, and 0.3 s this way.
    """
    started = Barrier(num_threads + 1)

    def start() -> None:
        torch.set_num_threads(1)
        started.wait()

    before = torch.get_num_threads()
    with ThreadPoolExecutor(num_threads) as pool:
        starts = [pool.submit(start) for _ in range(num_threads)]
        started.wait()
        # The number is each thread's own, but the last one set is also what threads made later begin with.
        torch.set_num_threads(before)
        for one in starts:
            one.result()
        yield pool


class _SlabSearch:
    """The vectors of a slab that may be among the best, given the k-th best scores so far."""

    def __init__(self, vectors_NF: Tensor, queries_SF: Tensor, k: int, kth_best_S: np.ndarray) -> None:
        self.vectors_NF = vectors_NF
        self.queries_SF = queries_SF
        self.k = k
        # A product of F terms is off by at most F * 2^-24 * |q| * |v|, and |v| is 1 within fp16's rounding.
        self.slack_S = 1.01 * (vectors_NF.shape[1] + 4) * 2.0**-24 * queries_SF.double().norm(dim=1).numpy()
        self.floor_S = kth_best_S - self.slack_S

    def __call__(self, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Queries, numbers and scores of the pairs."""
        scores_SB = self._scores(start, min(start + SLAB_ROWS, len(self.vectors_NF)))
        floor_S = self.floor_S
        if scores_SB.shape[1] >= self.k:
            kth_S = scores_SB.topk(self.k, dim=1).values[:, -1].numpy()
            floor_S = np.maximum(floor_S, kth_S - 2 * self.slack_S)
        owners_P, rows_P = np.nonzero(scores_SB.numpy() >= floor_S.astype(np.float32)[:, None])
        numbers_P = rows_P + start
        scores_P = np.empty(len(rows_P), dtype=np.float32)
        at_once = max(1, RESCORED_BYTES // (8 * self.vectors_NF.shape[1]))
        for first in range(0, len(rows_P), at_once):
            part = slice(first, first + at_once)
            scores_P[part] = self._rescored(owners_P[part], numbers_P[part])
        return owners_P, numbers_P, scores_P

    def _scores(self, start: int, end: int) -> Tensor:
        dim = self.vectors_NF.shape[1]
        piece_rows = min(end - start, max(1, PIECE_BYTES // (4 * dim)))
        piece = torch.empty(piece_rows, dim)
        scores_SB = torch.empty(len(self.queries_SF), end - start)
        for first in range(start, end, piece_rows):
            part = self.vectors_NF[first : min(first + piece_rows, end)]
            widened = piece[: len(part)].copy_(part)
            scores_SB[:, first - start : first - start + len(part)] = self.queries_SF @ widened.T
        return scores_SB

    def _rescored(self, owners: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Products in fp64, rounded to fp32 once; each row is added up in the same order wherever it stands."""
        products = self.vectors_NF[torch.from_numpy(numbers)].double().numpy()
        products *= self.queries_SF[torch.from_numpy(owners)].double().numpy()
        scores: np.ndarray = products.sum(axis=1).astype(np.float32)
        return scores


def _merged(
    best_scores: np.ndarray, best_numbers: np.ndarray, owners: np.ndarray, numbers: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of each query among the best so far and the new ones."""
    num_queries, k = best_scores.shape
    all_owners = np.concatenate([np.repeat(np.arange(num_queries), k), owners])
    all_scores = np.concatenate([best_scores.ravel(), scores])
    all_numbers = np.concatenate([best_numbers.ravel(), numbers])
    order = np.lexsort((all_numbers, -all_scores, all_owners))
    firsts = np.searchsorted(all_owners[order], np.arange(num_queries))
    chosen = order[firsts[:, None] + np.arange(k)]
    return all_scores[chosen], all_numbers[chosen]
