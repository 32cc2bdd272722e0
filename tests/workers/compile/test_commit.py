"""Rows become durable after their media, whatever is lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ibllm_core.prompts import TokenisedSample
from ibllm_core.storage import ObjectStore
from workers.compile.commit import Committer
from workers.compile.feature_store import FeatureStore
from workers.compile.ledger import Ledger
from workers.compile.rows import Bundle, PreparedRow
from workers.compile.staging import Block, Staging, resume_points

pytestmark = pytest.mark.usefixtures("small_blocks")


def row(number: int, *media: str, reason: str = "") -> PreparedRow:
    sample = None if reason else TokenisedSample(tokens=[1, 2, number], labels=((1, 3),))
    return PreparedRow(row=number, sample=sample, media=media, instruction="what?", answer="that", reason=reason)


def bundle(first: int, rows: list[PreparedRow], *, piece: int = 0, ends: bool = False, own: str = "") -> Bundle:
    """``own`` names the media that this bundle was the first to show."""
    vectors = {key: np.full((1, 2), len(key), dtype=np.float16) for key in own.split()}
    return Bundle(input=0, piece=piece, first=first, rows=tuple(rows), ends_piece=ends, vectors=vectors)


class Run:
    """One attempt over one input."""

    count = 0

    def __init__(self, store: ObjectStore, folder: Path, name: str = "") -> None:
        Run.count += 1
        name = name or f"run-{Run.count}"
        self.ledger = Ledger(folder / f"{Run.count}.sqlite")
        self.features = FeatureStore(store, name)
        self.staging = Staging(store, f"staging/{name}")
        for part, keys in self.features.parts():
            self.ledger.store(part, keys)
        self.committer = self.go_on()

    def go_on(self) -> Committer:
        """What another pass or attempt begins with."""
        resume = {(0, piece): point for piece, point in resume_points(self.staging.blocks()).items()}
        return Committer(self.ledger, self.features, [self.staging], resume)

    def rows(self) -> list[PreparedRow]:
        return [made for block in self.staging.blocks() for made in self.staging.read(block)]


def test_rows_come_back_as_they_were(store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    rows = [row(1, "a"), row(2, reason="it is broken"), row(3, "a", "b"), row(4)]
    run.committer.add(bundle(0, rows, ends=True, own="a b"))
    run.committer.finish()
    assert run.rows() == rows
    assert resume_points(run.staging.blocks()) == {0: (4, True)}
    assert run.ledger.are_settled(["a", "b"])


def test_rows_wait_for_media_that_come_later(store: ObjectStore, tmp_path: Path) -> None:
    """Another task claimed the picture first, and its bundle comes after this one."""
    run = Run(store, tmp_path)
    run.committer.add(bundle(0, [row(1, "a")], ends=True))
    assert run.rows() == []
    run.committer.add(bundle(0, [row(2, "a")], piece=1, ends=True, own="a"))
    assert run.rows() == [row(1, "a"), row(2, "a")]


def test_rows_whose_media_are_lost_are_read_again(store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    run.committer.add(bundle(0, [row(n, f"m{n}") for n in range(4)], own="m0 m1 m2 m3"))
    run.committer.add(bundle(4, [row(4, "lost"), row(5)], ends=True))
    run.committer.finish()
    assert resume_points(run.staging.blocks()) == {0: (4, False)}
    again = run.go_on()
    again.add(bundle(4, [row(4, "lost"), row(5)], ends=True, own="lost"))
    again.finish()
    assert [made.row for made in run.rows()] == list(range(6))
    assert resume_points(run.staging.blocks()) == {0: (6, True)}


def test_a_gap_in_a_piece_is_never_jumped(store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    run.committer.add(bundle(0, [row(0), row(1)]))
    run.committer.add(bundle(4, [row(4), row(5)], ends=True))
    run.committer.add(bundle(0, [row(6)], piece=1, ends=True))
    run.committer.finish()
    assert [made.row for made in run.rows()] == [0, 1, 6]
    assert resume_points(run.staging.blocks()) == {0: (2, False), 1: (1, True)}


def test_bad_media_settle_rows_too(store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    spoilt = bundle(0, [row(0, "bad")], ends=True)
    run.committer.add(Bundle(**{**vars(spoilt), "bad": {"bad": "it is broken"}}))
    run.committer.finish()
    (committed,) = run.rows()
    assert (committed.row, committed.sample, committed.reason) == (0, None, "it is broken")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    died=st.integers(0, 6),
    lost=st.sets(st.integers(0, 5)),
)
def test_a_run_that_was_killed_goes_on_to_the_same_rows(
    store: ObjectStore, tmp_path: Path, sizes: list[int], died: int, lost: set[int]
) -> None:
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    whole = [
        bundle(
            start,
            [row(n, f"m{n}") for n in range(start, start + size)],
            own=" ".join(f"m{n}" for n in range(start, start + size)),
        )
        for start, size in zip(starts, sizes, strict=True)
    ]
    whole.append(bundle(sum(sizes), [], ends=True))
    first = Run(store, tmp_path)
    name = f"run-{Run.count}"
    for number, made in enumerate(whole[:died]):
        if number not in lost:
            first.committer.add(made)
    second = Run(store, tmp_path, name)  # the first one never finished: what it held in memory is gone
    begin, is_done = resume_points(second.staging.blocks()).get(0, (0, False))
    if not is_done:
        rows = [made for part in whole for made in part.rows][begin:]
        new = [key for made in rows for key in made.media if second.ledger.claim([key], f"{made.row}")[0]]
        second.committer.add(bundle(begin, rows, ends=True, own=" ".join(new)))
        second.committer.finish()
    assert second.rows() == [made for part in whole for made in part.rows]
    keys = [f"m{n}" for n in range(sum(sizes))]
    assert second.ledger.are_settled(keys)
    stored = [key for _, part in second.features.parts() for key in part]
    assert sorted(stored) == sorted(keys)  # and none of them twice


def test_blocks_sort_as_their_names(store: ObjectStore) -> None:
    blocks = [Block(piece=p, first=f, next=f + 1, ends_piece=False) for p in (0, 2, 10) for f in (0, 5, 1000)]
    assert sorted(block.name for block in blocks) == [block.name for block in sorted(blocks)]
