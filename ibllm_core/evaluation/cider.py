"""CIDEr of captions (Vedantam et al. 2015), in the form CIDEr-D that COCO reports.

An n-gram counts by how often it stands in a caption and how few pictures have it among their references; words that
every picture has count nothing. A caption's score is its likeness to each reference, their mean, times 10.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ibllm_core.evaluation.ngrams import ngrams

MAX_N = 4
SIGMA = 6.0  # the length penalty's, in words
SCALE = 10.0

Ngram = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Weighted:
    """A caption's tf-idf for n = 1 to 4, the length of each as a vector, and its number of pairs of words."""

    weights: tuple[Mapping[Ngram, float], ...]
    norms: tuple[float, ...]
    num_pairs: int


def cider_d(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """The score of each caption as words, between 0 and 10; the corpus's is their mean.

    Document frequencies are those of ``references``, so that a score depends on the other pictures, and is 0 where
    there is but one. ``ValueError`` for a caption without reference.
    """
    if not all(references):
        raise ValueError("a caption has no reference to be compared with")
    seen_in = Counter(ngram for own in references for ngram in set(_all_ngrams(own)))
    log_pictures = math.log(max(1, len(references)))
    scores = []
    for candidate, own in zip(candidates, references, strict=True):
        mine = _weighted(candidate, seen_in, log_pictures)
        likeness = [_likeness(mine, _weighted(words, seen_in, log_pictures)) for words in own]
        scores.append(SCALE * sum(likeness) / len(likeness))
    return scores


def _all_ngrams(captions: Iterable[Sequence[str]]) -> Iterable[Ngram]:
    return (ngram for words in captions for n in range(1, MAX_N + 1) for ngram in ngrams(words, n))


def _weighted(words: Sequence[str], seen_in: Mapping[Ngram, int], log_pictures: float) -> _Weighted:
    weights = tuple(
        {
            ngram: count * (log_pictures - math.log(max(1, seen_in.get(ngram, 0))))
            for ngram, count in Counter(ngrams(words, n)).items()
        }
        for n in range(1, MAX_N + 1)
    )
    norms = tuple(math.sqrt(sum(weight**2 for weight in part.values())) for part in weights)
    return _Weighted(weights=weights, norms=norms, num_pairs=max(0, len(words) - 1))


def _likeness(candidate: _Weighted, reference: _Weighted) -> float:
    """Cosine of the clipped weights, the mean over n, less for another length."""
    total = 0.0
    parts = zip(candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True)
    for mine, theirs, my_norm, their_norm in parts:
        if my_norm and their_norm:
            shared = sum(min(weight, theirs.get(ngram, 0.0)) * theirs.get(ngram, 0.0) for ngram, weight in mine.items())
            total += shared / (my_norm * their_norm)
    gap = candidate.num_pairs - reference.num_pairs
    return total / MAX_N * math.exp(-(gap**2) / (2 * SIGMA**2))
