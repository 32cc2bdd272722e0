import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.data.blocks import SHORTEST_SHARE, lay_out
from ibllm_core.model.fusion.base import NO_SEGMENT

lengths = st.lists(st.integers(1, 90), min_size=1, max_size=40).map(np.array)


@given(lengths, st.integers(0, 9))
def test_every_token_has_its_place_among_those_of_its_sample(lengths: np.ndarray, padding: int) -> None:
    tokens = lengths.sum()
    blocks = lay_out(lengths, np.arange(len(lengths)), tokens + padding)
    assert (blocks.num_tokens, blocks.longest) == (tokens, lengths.max())
    places = blocks.place_of_token_T[:tokens]
    assert blocks.token_of_place_M[places].tolist() == list(range(tokens))
    assert not set(places.tolist()) & set(blocks.spare_P.tolist())
    assert len(places) + len(blocks.spare_P) == len(blocks.token_of_place_M)
    place = 0
    lines = []
    for count, width in blocks.buckets:
        for _ in range(count):
            lines.append(blocks.token_of_place_M[place : place + width].tolist())
            place += width
    for segment, line in zip(blocks.bucket_segments_S.tolist(), lines, strict=True):
        own = range(*blocks.bounds_S1[segment : segment + 2].tolist())
        assert line == [*own] + [own[-1]] * (len(line) - len(own))


@given(lengths)
def test_buckets_waste_no_more_than_they_may(lengths: np.ndarray) -> None:
    blocks = lay_out(lengths, np.arange(len(lengths)), lengths.sum())
    assert len(blocks.token_of_place_M) <= lengths.sum() / SHORTEST_SHARE


def test_padding_stands_in_for_a_sample_where_there_is_none() -> None:
    blocks = lay_out(np.array([], dtype=int), np.array([], dtype=int), 4)
    assert (blocks.num_tokens, blocks.buckets) == (1, ((1, 1),))
    assert blocks.segments_S.tolist() == [NO_SEGMENT]
