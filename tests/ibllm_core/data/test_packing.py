import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.data.packing import POOL, Sampler, order_of, pack
from ibllm_core.errors import InvalidSpecError

lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def order(num_samples: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return order_of([num_samples], [1.0], seed, epoch)


def sampler(sizes: list[int], **changes: object) -> Sampler:
    settings = {"weights": [1.0] * len(sizes), "seed": 3, "epochs": 2, "row_tokens": 40, "rows_per_step": 2, **changes}
    return Sampler(sizes=sizes, **settings)


@given(lengths_of, st.integers(0, 5), st.integers(0, 3), st.sampled_from([40, 64, 700]))
def test_every_sample_is_packed_once_and_no_row_overflows(
    lengths: list[int], seed: int, epoch: int, row_tokens: int
) -> None:
    rows = pack(order(len(lengths), seed, epoch), np.array(lengths), row_tokens)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= row_tokens for row in rows)


@given(lengths_of)
def test_the_last_room_of_a_row_is_filled_as_well_as_it_can_be(lengths: list[int]) -> None:
    """Against every subset, where all samples lie in the pool."""
    lengths = lengths[:12]
    first = pack(np.arange(len(lengths)), np.array(lengths), 40)[0]
    others = list(lengths)
    others.remove(max(lengths))
    sums = {0}
    for length in others:
        sums |= {total + length for total in sums}
    best = max(total for total in sums if total + max(lengths) <= 40)
    assert sum(lengths[index] for index in first) == max(lengths) + best


@given(lengths_of, st.integers(1, 4))
def test_every_world_size_sees_the_same_global_batches(lengths: list[int], rows_per_step: int) -> None:
    made = list(sampler([len(lengths)], rows_per_step=rows_per_step).batches(np.array(lengths)))
    assert made == list(sampler([len(lengths)], rows_per_step=rows_per_step).batches(np.array(lengths)))
    assert len(made) == sampler([len(lengths)], rows_per_step=rows_per_step).count_steps(np.array(lengths))
    for world_size in (1, 2, 3):
        for batch in made:
            slices = [batch.rows[rank::world_size] for rank in range(world_size)]
            assert sorted(row for part in slices for row in part) == sorted(batch.rows)


def test_epochs_differ() -> None:
    assert order(50, 0, 0).tolist() != order(50, 0, 1).tolist()
    assert order(50, 0, 0).tolist() != order(50, 1, 0).tolist()


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0.05, 3)), min_size=1, max_size=3), st.integers(1, 6))
def test_no_sample_is_seen_again_before_all_others_of_its_dataset(parts: list[tuple[int, float]], epochs: int) -> None:
    sizes, weights = [size for size, _ in parts], [weight for _, weight in parts]
    seen = np.concatenate([order_of(sizes, weights, 7, epoch) for epoch in range(epochs)])
    first = 0
    for size, weight in parts:
        counts = np.bincount(seen[(seen >= first) & (seen < first + size)] - first, minlength=size)
        assert counts.sum() == round(size * weight * epochs)
        assert counts.max() - counts.min() <= 1
        first += size


def test_a_weight_that_takes_nothing_is_refused() -> None:
    assert sampler([10, 10], weights=[1.0, 0.1], epochs=1)
    with pytest.raises(InvalidSpecError, match=r"a weight of 0\.01 takes none of a dataset's 10 samples in 3 epochs"):
        sampler([10, 10], weights=[1.0, 0.01], epochs=3)


def test_datasets_are_mixed_and_not_one_after_the_other() -> None:
    is_second = order_of([500, 500], [1.0, 1.0], 0, 0) >= 500
    assert 0.4 < is_second[:100].mean() < 0.6


@pytest.mark.parametrize(
    ("name", "row_tokens", "at_least"),
    [("stamps", 128, 0.99), ("captions", 256, 0.97), ("captions", 2048, 0.99), ("instructions", 1024, 0.99)],
)
def test_rows_are_almost_full(name: str, row_tokens: int, at_least: float) -> None:
    """Captions of the web with their prompt have 73 tokens or so, which three to a row of 256 cannot fill wholly."""
    rng, count = np.random.default_rng(0), 60 * POOL
    lengths = {
        "stamps": rng.integers(10, 41, count),
        "captions": np.clip(rng.normal(70, 15, count), 50, 120).astype(int),
        "instructions": np.clip(rng.lognormal(5, 0.6, count), 20, 1000).astype(int),
    }[name]
    rows = pack(order(count), lengths, row_tokens)
    assert lengths.sum() / (row_tokens * len(rows)) > at_least


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 0 has 41 tokens, a row only 40"):
        pack([0], np.array([41]), 40)
