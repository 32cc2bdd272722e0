"""What attempts leave behind when they die, and what the next one makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibllm_core.storage import ObjectStore
from tests.workers.compile.test_commit import Run, bundle, row
from workers.compile.assemble import Assembler, Counts
from workers.compile.feature_store import FeatureStore
from workers.compile.rows import Bundle
from workers.compile.staging import Block, resume_points

pytestmark = pytest.mark.usefixtures("small_blocks")


def assemble(run: Run, folder: Path) -> Counts:
    for name in ("out", "scratch"):
        (folder / name).mkdir()
    return Assembler(
        staging=run.staging,
        ledger=run.ledger,
        features=run.features,
        folder=folder / "out",
        scratch=folder / "scratch",
        views=1,
        feature_dim=2,
    ).assemble(None)


def spoilt(rows: Bundle, key: str) -> Bundle:
    return Bundle(**{**vars(rows), "bad": {key: "it is broken"}})


def test_rows_without_media_are_committed_as_they_come(store: ObjectStore, tmp_path: Path) -> None:
    """Else Alpaca's 52,000 rows lie in the driver's memory until the end, and a kill loses them all."""
    run = Run(store, tmp_path)
    for number in range(10):
        run.committer.add(bundle(4 * number, [row(4 * number + n) for n in range(4)]))
    assert resume_points(run.staging.blocks()) == {0: (40, False)}


def test_rows_whose_media_an_earlier_run_encoded_are_committed_as_they_come(store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    run.ledger.store("part-1", ["a", "b"])
    for number in range(10):
        run.committer.add(bundle(4 * number, [row(4 * number + n, "a", "b") for n in range(4)]))
    assert resume_points(run.staging.blocks()) == {0: (40, False)}


def test_what_one_dead_task_took_holds_up_no_other_piece(store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    run.committer.add(bundle(0, [row(0, "lost")], ends=True))
    for piece in range(1, 20):
        run.committer.add(bundle(0, [row(piece, f"m{piece}")], piece=piece, ends=True, own=f"m{piece}"))
    run.committer.finish()
    assert {piece for piece, (_, done) in resume_points(run.staging.blocks()).items() if done} == set(range(1, 20))


def test_a_medium_that_was_refused_stays_refused_for_the_next_attempt(store: ObjectStore, tmp_path: Path) -> None:
    first = Run(store, tmp_path)
    name = f"run-{Run.count}"
    rows = [row(1, "good"), row(2, "bad"), row(3), row(4)]
    first.committer.add(spoilt(bundle(0, rows, ends=True, own="good"), "bad"))
    assert resume_points(first.staging.blocks()) == {0: (4, True)}
    second = Run(store, tmp_path, name)  # the first was killed before it could assemble
    counts = assemble(second, tmp_path)
    assert (counts.samples, counts.quarantined, counts.reasons) == (3, 1, ["row 2: it is broken"])


def test_a_row_is_in_the_dataset_once_whatever_blocks_two_attempts_left(store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    rows = [row(n) for n in range(8)]
    for first, following, is_last in ((0, 3, False), (0, 4, False), (3, 8, True), (4, 8, True)):
        run.staging.write(Block(piece=0, first=first, next=following, ends_piece=is_last), rows[first:following])
    assert resume_points(run.staging.blocks()) == {0: (8, True)}
    assert assemble(run, tmp_path).rows == 8


def test_two_jobs_that_store_the_same_media_leave_a_part_that_can_be_read(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two kinds of machine, so that their vectors differ; all of one between two steps of the other."""
    one, other = FeatureStore(store, "both"), FeatureStore(store, "both")
    put_json = store.put_json

    def late(key: str, value: object) -> None:
        monkeypatch.setattr(store, "put_json", put_json)
        other.add(["a", "b"], np.full((2, 1, 2), 0.501, dtype=np.float16))
        put_json(key, value)

    monkeypatch.setattr(store, "put_json", late)
    one.add(["a", "b"], np.full((2, 1, 2), 0.5, dtype=np.float16))
    for part, _ in one.parts():
        assert one.fetch(part, tmp_path).shape == (2, 1, 2)


def test_a_killed_clear_leaves_nothing_that_is_taken_twice(store: ObjectStore, tmp_path: Path) -> None:
    run = Run(store, tmp_path)
    rows = [row(n) for n in range(8)]
    # The last two of an attempt whose first block ended early; it was killed while it cleared.
    run.staging.write(Block(piece=0, first=3, next=7, ends_piece=False), rows[3:7])
    run.staging.write(Block(piece=0, first=7, next=8, ends_piece=True), rows[7:])
    again = run.go_on()
    again.add(bundle(0, rows[:4]))
    again.add(bundle(4, rows[4:], ends=True))
    again.finish()
    assert assemble(run, tmp_path).rows == 8
