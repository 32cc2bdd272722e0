import torch

from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.dataset import Dataset
from ibllm_core.model.fusion.base import NO_SEGMENT


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
    assert dataset.lengths(2).tolist() == [7, 5, 4, 8]
