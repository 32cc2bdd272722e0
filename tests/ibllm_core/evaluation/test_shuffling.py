from dataclasses import replace

from ibllm_core.data.dataset import NO_FEATURE, Dataset
from ibllm_core.evaluation.shuffling import shuffled_media


def test_no_sample_keeps_its_own_picture(dataset: Dataset) -> None:
    for seed in range(20):
        shuffled = shuffled_media(dataset, seed)
        for own, medium in zip(dataset.feature_S, shuffled, strict=True):
            if own == NO_FEATURE:
                assert medium == NO_FEATURE
            else:
                assert medium not in (own, NO_FEATURE)


def test_the_shuffle_is_the_same_every_time(dataset: Dataset) -> None:
    assert shuffled_media(dataset, 0).tolist() == shuffled_media(dataset, 0).tolist()


def test_grey_is_nobodys_picture(dataset: Dataset) -> None:
    grey = replace(dataset, grey=2)
    for seed in range(20):
        assert shuffled_media(grey, seed).tolist() == [1, 0, NO_FEATURE, 2]
