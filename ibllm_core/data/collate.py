"""Rows of samples as the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import torch

from ibllm_core.data.blocks import lay_out
from ibllm_core.data.dataset import NO_FEATURE, Gathered, ranges
from ibllm_core.model.batch import Batch
from ibllm_core.model.fusion.base import NO_SEGMENT


class Samples(Protocol):
    """A dataset, or several."""

    @property
    def num_labels_S(self) -> np.ndarray:
        """Label tokens of each sample."""

    def gather(self, indices: np.ndarray) -> Gathered:
        """Some samples' columns."""

    def vectors(self, features: np.ndarray, epoch: int | None) -> np.ndarray:
        """Vectors of features."""


def collate(
    samples: Samples,
    rows: Sequence[Sequence[int]],
    *,
    row_tokens: int,
    pad_token: int,
    media_tokens: int = 0,
    epoch: int | None = None,
    feature_of: np.ndarray | None = None,
) -> Batch:
    """Lay the samples of all rows side by side, in their order; what the rows leave is padding at the end.

    ``media_tokens`` positions stay free before a sample with media, for a fusion that puts tokens there. ``epoch``
    chooses among the stored views of media. ``feature_of`` overrides which media each sample has: the shuffled control
    of an evaluation.
    """
    members = _flat(rows)
    found = samples.gather(members)
    features = found.feature_S if feature_of is None else feature_of[members]
    has_media = features != NO_FEATURE
    lead = media_tokens * has_media
    lengths = found.lengths_S + lead
    starts = np.cumsum(lengths) - lengths
    segments = np.where(has_media, np.cumsum(has_media) - 1, NO_SEGMENT)

    total = len(rows) * row_tokens
    padding = total - lengths.sum()
    tokens = np.full(total, pad_token)
    places = ranges(starts + lead, found.lengths_S)
    tokens[places] = found.tokens_T
    return Batch(
        tokens_T=torch.from_numpy(tokens),
        positions_T=torch.from_numpy(ranges(np.zeros(len(lengths) + 1, np.int64), np.append(lengths, padding))),
        segments_T=torch.from_numpy(np.append(np.repeat(segments, lengths), np.full(padding, NO_SEGMENT))),
        blocks=lay_out(lengths, segments, total),
        # A label is predicted from the position before it.
        places_N=torch.from_numpy(places[found.is_label_T] - 1),
        targets_N=torch.from_numpy(found.tokens_T[found.is_label_T].astype(np.int64)),
        features_SF=torch.from_numpy(samples.vectors(features[has_media], epoch)),
    )


def count_labels(samples: Samples, rows: Sequence[Sequence[int]]) -> int:
    """Label tokens of some rows: known to every rank without asking the others."""
    return int(samples.num_labels_S[_flat(rows)].sum())


def _flat(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), dtype=np.int64)
