"""Who writes what: every element of every tensor once, and writers with about equal loads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.train.checkpoint import parts
from workers.train.checkpoint.parts import KINDS, Part, assign

Held = dict[str, tuple[tuple[int, ...], int, int]]
SHAPES = st.lists(st.lists(st.integers(1, 7), max_size=3).map(tuple), min_size=1, max_size=12)


@st.composite
def partitions(draw: st.DrawFn) -> list[Held]:
    """What ranks hold of some parameters: cut anywhere, as ZeRO's flat buffers are, or whole on every rank."""
    ranks, shapes = draw(st.integers(1, 5)), draw(SHAPES)
    held: list[Held] = [{} for _ in range(ranks)]
    for number, shape in enumerate(shapes):
        size = math.prod(shape)
        if draw(st.booleans()):
            for mine in held:
                mine[str(number)] = (shape, 0, size)
            continue
        cuts = sorted(draw(st.lists(st.integers(0, size), min_size=ranks - 1, max_size=ranks - 1)))
        for mine, start, end in zip(held, [0, *cuts], [*cuts, size], strict=True):
            if end > start:
                mine[str(number)] = (shape, start, end - start)
    return held


@given(partitions(), st.integers(1, 5), st.sampled_from([1, 64, 1 << 26]))
def test_every_element_has_one_piece_that_its_owner_holds(held: list[Held], writers: int, bytes_a_writer: int) -> None:
    for part in assigned(held, writers, bytes_a_writer):
        covered = [0] * math.prod(part.shape)
        for piece in part.pieces:
            shape, start, count = held[piece.owner][part.name]
            assert (shape, start, count) == (part.shape, piece.start, piece.count)
            for element in range(piece.start, piece.start + piece.count):
                covered[element] += 1
        assert covered == [1] * len(covered)


@given(partitions(), st.integers(1, 5), st.sampled_from([1, 64, 1 << 26]))
def test_writers_differ_by_one_tensor_at_most(held: list[Held], writers: int, bytes_a_writer: int) -> None:
    writers = min(writers, len(held))
    found = assigned(held, writers, bytes_a_writer)
    assert [part.name for part in found] == sorted({name for mine in held for name in mine}, key=order(found))
    sizes = {part.name: math.prod(part.shape) for part in found}
    allowed = min(writers, 1 + 4 * len(KINDS) * sum(sizes.values()) // bytes_a_writer)
    load = [sum(sizes[part.name] for part in found if part.writer == writer) for writer in range(allowed)]
    assert sum(load) == sum(sizes.values())
    assert max(load) - min(load) <= max(sizes.values())


def test_what_fits_into_one_file_is_one_file() -> None:
    held: list[Held] = [{"a": ((1024,), 0, 1024), "b": ((8,), 0, 8)}] * 4
    assert {part.writer for part in assign(held, 4)} == {0}


def test_whole_copies_are_taken_from_their_writer_and_sent_nowhere() -> None:
    held: list[Held] = [{str(number): ((4, 4), 0, 16) for number in range(8)}] * 2
    found = assigned(held, 2, 1)
    assert [part.writer for part in found] == [0, 1] * 4
    assert all(piece.owner == part.writer for part in found for piece in part.pieces)


def assigned(held: list[Held], writers: int, bytes_a_writer: int) -> list[Part]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "BYTES_A_WRITER", bytes_a_writer)
        return assign(held, min(writers, len(held)))


def order(found: list[Part]) -> object:
    places = {part.name: place for place, part in enumerate(found)}
    return places.__getitem__
