from pathlib import Path

import numpy as np
import torch

from ibllm_core.data import dataset as datasets
from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.dataset import Dataset
from ibllm_core.model.fusion.base import NO_SEGMENT


def test_what_is_written_is_read(tmp_path: Path, dataset: Dataset) -> None:
    datasets.write(tmp_path, dataset)
    back = datasets.read(tmp_path)
    assert back.samples == dataset.samples
    assert back.feature_hashes == dataset.feature_hashes
    np.testing.assert_array_equal(back.features, dataset.features)


def test_the_id_depends_on_everything_that_the_content_depends_on() -> None:
    base = {
        "file_sha256": "f",
        "encoder_sha256": "e",
        "tokenizer_sha256": "t",
        "template": "short",
        "row_tokens": 128,
        "media_tokens": 0,
        "grey_for_text": False,
    }
    assert datasets.dataset_id(**base) == datasets.dataset_id(**base)
    for key, value in base.items():
        changed = {**base, key: "other" if isinstance(value, str) else value + 1}
        assert datasets.dataset_id(**changed) != datasets.dataset_id(**base)


def test_a_row_holds_its_samples_and_padding_apart(dataset: Dataset) -> None:
    rows = [[1, 2], [0]]
    batch = collate(dataset, rows, row_tokens=8, pad_token=63)
    assert batch.tokens_BT.tolist() == [[10, 11, 12, 20, 21, 22, 23, 63], [5, 6, 7, 8, 9, 63, 63, 63]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 2, 3, 4, 0, 1, 2]]
    text_only = [NO_SEGMENT] * 4
    assert batch.segments_BT.tolist() == [[0, 0, 0, *text_only, -1], [1] * 5 + [-1] * 3]
    assert batch.places_N.tolist() == [0, 1, 5, 8 + 1, 8 + 2, 8 + 3]
    assert batch.targets_N.tolist() == [11, 12, 23, 7, 8, 9]
    assert torch.equal(batch.features_SF, torch.from_numpy(dataset.features[[1, 0]]))
    assert batch.num_labels == count_labels(dataset, rows) == 6


def test_media_tokens_have_places_before_the_text(dataset: Dataset) -> None:
    batch = collate(dataset, [[1, 2]], row_tokens=12, pad_token=63, media_tokens=2)
    assert batch.tokens_BT.tolist() == [[63, 63, 10, 11, 12, 20, 21, 22, 23, 63, 63, 63]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2]]
    assert batch.places_N.tolist() == [2, 3, 7]
    assert dataset.lengths(2) == [7, 5, 4, 8]
