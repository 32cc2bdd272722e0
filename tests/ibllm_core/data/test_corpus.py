"""Several datasets read as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.dataset import NO_FEATURE, Dataset
from ibllm_core.errors import InvalidDataError
from tests.conftest import FEATURE_DIM, sample


@pytest.fixture
def second() -> Dataset:
    """Two samples, the first of text alone."""
    features = np.full((1, FEATURE_DIM), 7, dtype=np.float32)
    return Dataset.of([sample([40, 41, 42], 1, NO_FEATURE), sample([50, 51], 1, 0)], features, ["d"])


def test_parts_are_numbered_one_after_the_other(dataset: Dataset, second: Dataset) -> None:
    corpus = Corpus([dataset, second], [1.0, 2.0])
    assert (len(corpus), corpus.sizes, corpus.weights) == (6, [4, 2], (1.0, 2.0))
    assert corpus.lengths(2).tolist() == [*dataset.lengths(2), *second.lengths(2)]
    assert corpus.num_labels_S.tolist() == [3, 2, 1, 4, 2, 1]


def test_a_batch_of_several_parts_is_that_of_one_dataset_with_all_samples(dataset: Dataset, second: Dataset) -> None:
    samples = [
        sample([5, 6, 7, 8, 9], 2, 0),
        sample([10, 11, 12], 1, 1),
        sample([20, 21, 22, 23], 3, NO_FEATURE),
        sample([30, 31, 32, 33, 34, 35], 2, 2),
        sample([40, 41, 42], 1, NO_FEATURE),
        sample([50, 51], 1, 3),
    ]
    features = np.concatenate([dataset.features, second.features])
    whole = Dataset.of(samples, features, ["a", "b", "c", "d"])
    rows = [(5, 0, 4), (3, 2), (1,)]
    shape = {"row_tokens": 14, "pad_token": 0, "media_tokens": 1}
    one, other = collate(whole, rows, **shape), collate(Corpus([dataset, second]), rows, **shape)
    assert one.blocks.buckets == other.blocks.buckets
    for name, tensor in (vars(one) | vars(one.blocks)).items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(tensor, getattr(other.blocks if name in vars(other.blocks) else other, name)), name
    assert count_labels(whole, rows) == count_labels(Corpus([dataset, second]), rows)


def test_features_of_two_encoders_are_refused(dataset: Dataset) -> None:
    other = Dataset.of([sample([1, 2], 1, 0)], np.ones((1, FEATURE_DIM + 1), dtype=np.float32), ["e"])
    with pytest.raises(InvalidDataError, match="compile with one encoder"):
        Corpus([dataset, other])


def test_text_alone_goes_with_any_encoder(dataset: Dataset) -> None:
    words = Dataset.of([sample([1, 2], 1, NO_FEATURE)], np.empty((0, 3), dtype=np.float32), [])
    assert Corpus([words, dataset]).feature_dim == FEATURE_DIM
