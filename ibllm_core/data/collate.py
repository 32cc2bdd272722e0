"""Rows of samples as the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.model.imagebind_llm import IGNORE_LABEL, Batch
from ibllm_core.model.injection import NO_SEGMENT


def collate(
    dataset: Dataset,
    rows: Sequence[Sequence[int]],
    *,
    row_tokens: int,
    pad_token: int,
    feature_of: Sequence[int] | None = None,
) -> Batch:
    """Lay the samples of each row side by side; what is left of a row is padding in a segment of its own.

    ``feature_of`` overrides which picture each sample of the dataset gets: the shuffled control of an evaluation.
    """
    shape = (len(rows), row_tokens)
    tokens = torch.full(shape, pad_token)
    labels = torch.full(shape, IGNORE_LABEL)
    segments = torch.full(shape, NO_SEGMENT)
    positions = torch.zeros(shape, dtype=torch.long)
    pictures: list[int] = []
    for r, members in enumerate(rows):
        start = 0
        for index in members:
            sample = dataset.samples[index]
            end = start + len(sample.tokens)
            tokens[r, start:end] = torch.tensor(sample.tokens)
            labels[r, start + sample.prompt_length : end] = tokens[r, start + sample.prompt_length : end]
            positions[r, start:end] = torch.arange(end - start)
            picture = _picture(sample, index, feature_of)
            if picture != NO_FEATURE:
                segments[r, start:end] = len(pictures)
                pictures.append(picture)
            start = end
        positions[r, start:] = torch.arange(row_tokens - start)
    return Batch(
        tokens_BT=tokens,
        positions_BT=positions,
        labels_BT=labels,
        segments_BT=segments,
        features_SF=torch.from_numpy(dataset.features[pictures]),
    )


def count_labels(dataset: Dataset, rows: Sequence[Sequence[int]]) -> int:
    """Label tokens of some rows: known to every rank without asking the others."""
    return sum(
        len(dataset.samples[index].tokens) - dataset.samples[index].prompt_length for row in rows for index in row
    )


def _picture(sample: CompiledSample, index: int, feature_of: Sequence[int] | None) -> int:
    return sample.feature if feature_of is None else feature_of[index]
