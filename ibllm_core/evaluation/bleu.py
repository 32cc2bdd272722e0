"""BLEU of a corpus (Papineni et al. 2002), as COCO reports it: no smoothing, brevity against the closest reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ibllm_core.evaluation.ngrams import ngrams

MAX_N = 4


def corpus_bleu(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """BLEU-1 to BLEU-4 of captions as words, each against the references of its picture; between 0 and 1.

    ``BLEU-n = min(1, exp(1 - r / c)) * (p_1 * ... * p_n) ** (1 / n)``, where ``p_k`` is the clipped precision of
    k-grams over the whole corpus, ``c`` the candidates' length, and ``r`` that of the reference closest in length to
    each, the shorter one of two. It is 0 where no k-gram is right. ``ValueError`` for a caption without reference.
    """
    matched, total = [0] * MAX_N, [0] * MAX_N
    length, reference_length = 0, 0
    for candidate, own in zip(candidates, references, strict=True):
        if not own:
            raise ValueError("a caption has no reference to be compared with")
        length += len(candidate)
        reference_length += min((abs(len(words) - len(candidate)), len(words)) for words in own)[1]
        for n in range(1, MAX_N + 1):
            counts = Counter(ngrams(candidate, n))
            matched[n - 1] += _clipped(counts, [Counter(ngrams(words, n)) for words in own])
            total[n - 1] += counts.total()
    if not length:
        return [0.0] * MAX_N
    brevity = min(1.0, math.exp(1 - reference_length / length))
    return [brevity * _geometric_mean(matched[:n], total[:n]) for n in range(1, MAX_N + 1)]


def _clipped(counts: Mapping[tuple[str, ...], int], references: Sequence[Mapping[tuple[str, ...], int]]) -> int:
    """How many n-grams are right: each at most as often as the one reference has it that has it most."""
    return sum(min(count, max(found.get(ngram, 0) for found in references)) for ngram, count in counts.items())


def _geometric_mean(matched: Sequence[int], total: Sequence[int]) -> float:
    if not all(matched):
        return 0.0
    return math.exp(sum(math.log(m / t) for m, t in zip(matched, total, strict=True)) / len(matched))
