"""Runs of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def ngrams(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """All runs of ``n`` words, in their order."""
    return (tuple(words[start : start + n]) for start in range(len(words) - n + 1))
