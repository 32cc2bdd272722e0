from ibllm_core.data.dataset import GREY, NO_FEATURE, Dataset
from workers.evaluate import shuffled_pictures


def test_no_sample_keeps_its_own_picture(dataset: Dataset) -> None:
    for seed in range(20):
        shuffled = shuffled_pictures(dataset, seed)
        for sample, picture in zip(dataset.samples, shuffled, strict=True):
            if sample.feature == NO_FEATURE:
                assert picture == NO_FEATURE
            else:
                assert picture not in (sample.feature, NO_FEATURE)


def test_the_shuffle_is_the_same_every_time(dataset: Dataset) -> None:
    assert shuffled_pictures(dataset, 0) == shuffled_pictures(dataset, 0)


def test_grey_is_nobodys_picture(dataset: Dataset) -> None:
    grey = Dataset(samples=dataset.samples, features=dataset.features, feature_hashes=["a", "b", GREY])
    for seed in range(20):
        shuffled = shuffled_pictures(grey, seed)
        assert shuffled == [1, 0, NO_FEATURE, 2]
