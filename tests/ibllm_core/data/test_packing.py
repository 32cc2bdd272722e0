from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.data.packing import batches, count_steps, order_of, pack

lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(lengths_of, st.integers(0, 5), st.integers(0, 3))
def test_every_sample_is_packed_once_and_no_row_overflows(lengths: list[int], seed: int, epoch: int) -> None:
    rows = pack(order_of(len(lengths), seed, epoch), lengths, 40)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 40 for row in rows)


@given(lengths_of, st.integers(1, 4))
def test_every_world_size_sees_the_same_global_batches(lengths: list[int], rows_per_step: int) -> None:
    shape = {"seed": 3, "epochs": 2, "row_tokens": 40, "rows_per_step": rows_per_step}
    made = list(batches(lengths, **shape))
    assert made == list(batches(lengths, **shape))
    assert len(made) == count_steps(lengths, **shape)
    for world_size in (1, 2, 3):
        for batch in made:
            slices = [batch.rows[rank::world_size] for rank in range(world_size)]
            assert sorted(row for part in slices for row in part) == sorted(batch.rows)


def test_epochs_differ() -> None:
    assert order_of(50, 0, 0) != order_of(50, 0, 1)
    assert order_of(50, 0, 0) != order_of(50, 1, 0)


def test_short_captions_fill_rows_almost_wholly() -> None:
    lengths = [10 + (7 * index) % 30 for index in range(500)]
    rows = pack(order_of(500, 0, 0), lengths, 256)
    assert sum(lengths) / (256 * len(rows)) > 0.97


def test_a_sample_longer_than_a_row_is_refused() -> None:
    try:
        pack([0], [41], 40)
    except ValueError as error:
        assert "sample 0 has 41 tokens" in str(error)
    else:
        raise AssertionError("it was packed")
