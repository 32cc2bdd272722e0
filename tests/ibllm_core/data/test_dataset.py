from pathlib import Path

import numpy as np
import torch

from ibllm_core.data import dataset as datasets
from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.dataset import Dataset
from ibllm_core.model.imagebind_llm import IGNORE_LABEL
from ibllm_core.model.injection import NO_SEGMENT


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
    }
    assert datasets.dataset_id(**base) == datasets.dataset_id(**base)
    for key in base:
        changed = {**base, key: 256 if key == "row_tokens" else "other"}
        assert datasets.dataset_id(**changed) != datasets.dataset_id(**base)


def test_a_row_holds_its_samples_and_padding_apart(dataset: Dataset) -> None:
    batch = collate(dataset, [[1, 2], [0]], row_tokens=8, pad_token=63)
    assert batch.tokens_BT.tolist() == [[10, 11, 12, 20, 21, 22, 23, 63], [5, 6, 7, 8, 9, 63, 63, 63]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 2, 3, 4, 0, 1, 2]]
    text_only = [NO_SEGMENT] * 4
    assert batch.segments_BT.tolist() == [[0, 0, 0, *text_only, -1], [1] * 5 + [-1] * 3]
    ignored = IGNORE_LABEL
    assert batch.labels_BT[0].tolist() == [ignored, 11, 12, ignored, ignored, ignored, 23, ignored]
    assert torch.equal(batch.features_SF, torch.from_numpy(dataset.features[[1, 0]]))
    assert int((batch.labels_BT != ignored).sum()) == count_labels(dataset, [[1, 2], [0]]) == 6
