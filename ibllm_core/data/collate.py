"""Rows of samples as the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import torch

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
    """Lay the samples of each row side by side; what is left of a row is padding, a sample of its own.

    ``media_tokens`` positions stay free before a sample with media, for a fusion that puts tokens there. ``epoch``
    chooses among the stored views of media. ``feature_of`` overrides which media each sample has: the shuffled control
    of an evaluation.
    """
    members = _flat(rows)
    found = samples.gather(members)
    features = found.feature_S if feature_of is None else feature_of[members]
    has_media = features != NO_FEATURE
    lead = media_tokens * has_media
    blocks = found.lengths_S + lead

    # A block a sample and one for the padding of each row: together they fill the rows exactly.
    members_a_row = np.array([len(row) for row in rows])
    ends = np.cumsum(members_a_row)
    room = np.full(len(rows), row_tokens)
    np.subtract.at(room, np.repeat(np.arange(len(rows)), members_a_row), blocks)
    filled = np.insert(blocks, ends, room)
    segments = np.insert(np.where(has_media, np.cumsum(has_media) - 1, NO_SEGMENT), ends, NO_SEGMENT)
    starts = np.cumsum(filled) - filled
    is_sample = np.insert(np.ones(len(members), dtype=bool), ends, False)

    tokens = np.full(len(rows) * row_tokens, pad_token)
    places = ranges(starts[is_sample] + lead, found.lengths_S)
    tokens[places] = found.tokens_T
    shape = (len(rows), row_tokens)
    return Batch(
        tokens_BT=torch.from_numpy(tokens.reshape(shape)),
        positions_BT=torch.from_numpy(ranges(np.zeros_like(filled), filled).reshape(shape)),
        segments_BT=torch.from_numpy(np.repeat(segments, filled).reshape(shape)),
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
