"""A compiled dataset as columns, which may lie in memory or be mapped from a node-local cache.

Shape suffixes: S samples, T tokens of all samples one after the other, M distinct media, V stored views of each, F
feature dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from ibllm_core.contract.marking import Marking

NO_FEATURE = -1
GREY = "grey"  # stands for a picture's key where text-only samples see a grey picture


@dataclass(frozen=True, kw_only=True)
class CompiledSample:
    """One sample, ready for packing.

    ``labels`` are spans ``[start, end)`` of ``tokens``; ``row`` is its row in the dataset as the user brought it, from
    1; ``instruction``, ``answer`` and ``marking`` are those of its first turn; ``media`` the keys of what it shows.
    """

    tokens: list[int]
    labels: Sequence[tuple[int, int]]
    feature: int
    row: int
    instruction: str
    answer: str
    media: Sequence[str] = ()
    marking: Marking | None = None


@dataclass(frozen=True, kw_only=True)
class SampleText:
    """What people read of a sample, and what its answer is marked by."""

    row: int
    instruction: str
    answer: str
    marking: Marking | None = None


class Provenance(Protocol):
    """What only reports need, and training never loads."""

    @property
    def texts(self) -> Sequence[SampleText]:
        """Of each sample."""

    @property
    def media(self) -> Sequence[str]:
        """The key of each feature."""


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """Provenance that is there already."""

    texts: Sequence[SampleText]
    media: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Some samples' columns, copied out; ``tokens_T`` and ``is_label_T`` hold them one after the other."""

    tokens_T: np.ndarray
    is_label_T: np.ndarray
    lengths_S: np.ndarray
    feature_S: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples as columns: ``tokens_T[starts_S[i]:starts_S[i + 1]]`` are those of sample ``i``.

    ``feature_S`` is the number of a sample's feature, ``NO_FEATURE`` for text alone; feature ``m`` has the rows
    ``m * views`` to ``(m + 1) * views - 1`` of ``features``, ``[M * V, F]``. ``grey`` is the feature that stands for no
    media under the preset ``released``.
    """

    tokens_T: np.ndarray
    is_label_T: np.ndarray
    starts_S: np.ndarray
    num_labels_S: np.ndarray
    feature_S: np.ndarray
    features: np.ndarray
    views: int = 1
    grey: int | None = None
    provenance: Provenance

    @staticmethod
    def of(samples: Sequence[CompiledSample], features: np.ndarray, media: Sequence[str]) -> Dataset:
        """Columns of samples that are at hand; ``features`` is ``[M, F]``, ``media`` the key of each."""
        is_label = [np.zeros(len(sample.tokens), dtype=bool) for sample in samples]
        for mask, sample in zip(is_label, samples, strict=True):
            for start, end in sample.labels:
                mask[start:end] = True
        texts = [SampleText(row=s.row, instruction=s.instruction, answer=s.answer, marking=s.marking) for s in samples]
        return Dataset(
            tokens_T=np.concatenate([np.empty(0, np.int32), *(np.array(s.tokens, np.int32) for s in samples)]),
            is_label_T=np.concatenate([np.empty(0, bool), *is_label]),
            starts_S=np.cumsum([0, *(len(s.tokens) for s in samples)]),
            num_labels_S=np.array([mask.sum() for mask in is_label], dtype=np.int64),
            feature_S=np.array([s.feature for s in samples], dtype=np.int32),
            features=features,
            grey=media.index(GREY) if GREY in media else None,
            provenance=InMemory(texts=texts, media=list(media)),
        )

    def __len__(self) -> int:
        return len(self.feature_S)

    @property
    def feature_dim(self) -> int:
        """F."""
        return int(self.features.shape[1])

    @property
    def num_features(self) -> int:
        """M."""
        return len(self.features) // self.views

    @cached_property
    def has_media_S(self) -> np.ndarray:
        """Whether a sample has media of its own; the grey picture is none."""
        mine: np.ndarray = self.feature_S != NO_FEATURE
        return mine if self.grey is None else mine & (self.feature_S != self.grey)

    def lengths(self, media_tokens: int = 0) -> np.ndarray:
        """Positions that each sample takes in a row: its tokens, and its media's where it has any."""
        lengths: np.ndarray = np.diff(self.starts_S) + media_tokens * (self.feature_S != NO_FEATURE)
        return lengths

    def prompt(self, index: int) -> list[int]:
        """The tokens before a sample's first answer."""
        start, end = self.starts_S[index : index + 2]
        first_label = int(self.is_label_T[start:end].argmax())
        tokens: list[int] = self.tokens_T[start : start + first_label].tolist()
        return tokens

    def gather(self, indices: np.ndarray) -> Gathered:
        """Copy some samples out, in the given order."""
        starts = self.starts_S[indices]
        lengths = self.starts_S[indices + 1] - starts
        places = ranges(starts, lengths)
        return Gathered(
            tokens_T=self.tokens_T[places],
            is_label_T=self.is_label_T[places],
            lengths_S=lengths,
            feature_S=self.feature_S[indices],
        )

    def vectors(self, features: np.ndarray, epoch: int | None) -> np.ndarray:
        """Feature vectors ``[len(features), F]``, at least fp32.

        Without ``epoch`` the view of evaluation, which is the first; each epoch of training takes another one.
        """
        view = 0 if epoch is None else (features + epoch) % self.views
        found: np.ndarray = self.features[features * self.views + view]
        return found.astype(np.float32) if found.dtype == np.float16 else found


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``[starts[0], starts[0] + 1, ..., starts[1], ...]``: from each start as many numbers as ``lengths`` says."""
    before = np.cumsum(lengths) - lengths
    places: np.ndarray = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
    return places
