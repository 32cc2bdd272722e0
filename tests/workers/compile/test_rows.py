"""Chunks and bundles: the same rows are always cut in the same way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.contract.media import Modality
from ibllm_core.formats.sample import BadRow, Media, Sample, Turn
from workers.compile.rows import CHUNK_BYTES, PICTURE_BYTES, chunks

SIZE = 16

KINDS = st.sampled_from([None, Modality.IMAGE, Modality.AUDIO, Modality.VIDEO])


def sample(row: int, kind: Modality | None) -> Sample:
    media = (Media(modality=kind, content=b"x"),) if kind else ()
    return Sample(row=row, turns=(Turn(instruction="a", answer="b"),), media=media)


@given(st.lists(KINDS, max_size=300), st.integers(0, 300), st.sampled_from([1, 8]))
def test_chunks_hold_every_row_once_and_the_last_ends_the_piece(
    kinds: list[Modality | None], skip: int, views: int
) -> None:
    skip = min(skip, len(kinds))
    rows = [sample(number, kind) for number, kind in enumerate(kinds)]
    cut = list(chunks(rows, input_number=2, piece=3, views=views, size=SIZE, skip=skip))
    assert [row for chunk in cut for row in chunk.rows] == rows[skip:]
    assert [chunk.ends_piece for chunk in cut] == [False] * (len(cut) - 1) + [True]
    first = skip
    for chunk in cut:
        assert (chunk.input, chunk.piece, chunk.first) == (2, 3, first)
        assert len(chunk.rows) <= SIZE
        first += len(chunk.rows)


def test_large_media_make_small_chunks() -> None:
    videos = [sample(number, Modality.VIDEO) for number in range(10)]
    assert max(len(chunk.rows) for chunk in chunks(videos, input_number=0, piece=0, views=1, size=SIZE)) == 3
    pictures = [sample(number, Modality.IMAGE) for number in range(200)]
    at_64_views = [len(chunk.rows) for chunk in chunks(pictures, input_number=0, piece=0, views=64, size=SIZE)]
    assert max(at_64_views) * 64 * PICTURE_BYTES < CHUNK_BYTES + 64 * PICTURE_BYTES


def test_bad_rows_travel_with_the_others() -> None:
    bad = BadRow(row=1, reason="it is broken")
    (chunk,) = chunks([bad], input_number=0, piece=0, views=1, size=SIZE)
    assert chunk.rows == (bad,)
