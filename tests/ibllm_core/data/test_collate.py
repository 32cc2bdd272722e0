import torch

from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.dataset import Dataset
from ibllm_core.model.fusion.base import NO_SEGMENT


def test_samples_lie_side_by_side_and_padding_at_the_end(dataset: Dataset) -> None:
    rows = [[1, 2], [0]]
    batch = collate(dataset, rows, row_tokens=8, pad_token=63)
    assert batch.tokens_T.tolist() == [10, 11, 12, 20, 21, 22, 23, 5, 6, 7, 8, 9, 63, 63, 63, 63]
    assert batch.positions_T.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert batch.segments_T.tolist() == [0] * 3 + [NO_SEGMENT] * 4 + [1] * 5 + [NO_SEGMENT] * 4
    assert batch.places_N.tolist() == [0, 1, 5, 7 + 1, 7 + 2, 7 + 3]
    assert batch.targets_N.tolist() == [11, 12, 23, 7, 8, 9]
    assert torch.equal(batch.features_SF, torch.from_numpy(dataset.features[[1, 0]]))
    assert batch.num_labels == count_labels(dataset, rows) == 6
    assert batch.blocks.bounds_S1.tolist() == [0, 3, 7, 12]
    assert batch.blocks.segments_S.tolist() == [0, NO_SEGMENT, 1]


def test_media_tokens_have_places_before_the_text(dataset: Dataset) -> None:
    batch = collate(dataset, [[1, 2]], row_tokens=12, pad_token=63, media_tokens=2)
    assert batch.tokens_T.tolist() == [63, 63, 10, 11, 12, 20, 21, 22, 23, 63, 63, 63]
    assert batch.positions_T.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2]
    assert batch.places_N.tolist() == [2, 3, 7]
    assert dataset.lengths(2).tolist() == [7, 5, 4, 8]
