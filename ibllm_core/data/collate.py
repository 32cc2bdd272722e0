"""Rows of samples as the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.model.batch import Batch
from ibllm_core.model.fusion.base import NO_SEGMENT


def collate(
    dataset: Dataset,
    rows: Sequence[Sequence[int]],
    *,
    row_tokens: int,
    pad_token: int,
    media_tokens: int = 0,
    feature_of: Sequence[int] | None = None,
) -> Batch:
    """Lay the samples of each row side by side; what is left of a row is padding, a sample of its own.

    ``media_tokens`` positions stay free before a sample with media, for a fusion that puts tokens there. ``feature_of``
    overrides which media each sample of the dataset gets: the shuffled control of an evaluation.
    """
    tokens = np.full((len(rows), row_tokens), pad_token)
    segments = np.full((len(rows), row_tokens), NO_SEGMENT)
    positions = np.zeros((len(rows), row_tokens), dtype=np.int64)
    places: list[np.ndarray] = []
    targets: list[int] = []
    media: list[int] = []
    for r, members in enumerate(rows):
        start = 0
        for index in members:
            sample = dataset.samples[index]
            feature = sample.feature if feature_of is None else feature_of[index]
            text = start + (media_tokens if feature != NO_FEATURE else 0)
            end = text + len(sample.tokens)
            tokens[r, text:end] = sample.tokens
            positions[r, start:end] = np.arange(end - start)
            if feature != NO_FEATURE:
                segments[r, start:end] = len(media)
                media.append(feature)
            # A label is predicted from the position before it.
            places.append(np.arange(text + sample.prompt_length - 1, end - 1) + r * row_tokens)
            targets += sample.tokens[sample.prompt_length :]
            start = end
        positions[r, start:] = np.arange(row_tokens - start)
    return Batch(
        tokens_BT=torch.from_numpy(tokens),
        positions_BT=torch.from_numpy(positions),
        segments_BT=torch.from_numpy(segments),
        places_N=torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int64), *places])),
        targets_N=torch.tensor(targets, dtype=torch.long),
        features_SF=torch.from_numpy(dataset.features[media]),
    )


def count_labels(dataset: Dataset, rows: Sequence[Sequence[int]]) -> int:
    """Label tokens of some rows: known to every rank without asking the others."""
    return sum(_num_labels(dataset.samples[index]) for row in rows for index in row)


def _num_labels(sample: CompiledSample) -> int:
    return len(sample.tokens) - sample.prompt_length
