from __future__ import annotations

from pathlib import Path

import pytest

from workers.compile.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_the_first_to_see_a_medium_has_to_encode_it(ledger: Ledger) -> None:
    assert ledger.claim(["a", "b"], "one") == [True, True]
    assert ledger.claim(["b", "c"], "other") == [False, True]


def test_what_is_stored_or_refused_is_settled_and_what_is_claimed_is_not(ledger: Ledger) -> None:
    ledger.claim(["a", "b", "c"], "one")
    assert not ledger.are_settled(["a"])
    ledger.store("part-1", ["b", "a"])
    ledger.refuse([("c", "it is broken")])
    assert ledger.are_settled(["a", "b", "c"])
    assert not ledger.are_settled(["a", "unknown"])
    assert ledger.places(["a", "b"]) == [("part-1", 1), ("part-1", 0)]
    assert ledger.reasons(["a", "c", "unknown"]) == {"c": "it is broken"}


def test_claims_that_came_to_nothing_can_be_made_again(ledger: Ledger) -> None:
    ledger.claim(["a", "b"], "one")
    ledger.store("part-1", ["a"])
    assert ledger.release() == 1
    assert ledger.claim(["a", "b"], "other") == [False, True]


def test_what_an_earlier_run_stored_is_never_claimed(ledger: Ledger) -> None:
    ledger.store("part-1", ["a"])
    assert ledger.claim(["a"], "one") == [False]


def test_a_task_that_is_run_again_claims_the_same_even_when_it_is_stored_by_now(ledger: Ledger) -> None:
    ledger.claim(["a", "b"], "one")
    ledger.store("part-1", ["a"])
    assert ledger.claim(["a", "b"], "one") == [True, True]


def test_another_pass_encodes_nothing_that_is_stored(ledger: Ledger) -> None:
    """It reads the rows behind a gap again in the same chunks, whose names therefore claimed these media before."""
    assert ledger.claim(["stored", "bad", "lost"], "0 0 16") == [True, True, True]
    ledger.store("part-1", ["stored"])
    ledger.refuse([("bad", "it is broken")])
    assert ledger.release() == 1
    assert ledger.claim(["stored", "bad", "lost"], "0 0 16") == [False, False, True]
