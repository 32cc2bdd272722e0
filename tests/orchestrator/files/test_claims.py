"""A file is one checker's at a time, and what a late one found changes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ibllm_core.formats.check import Report
from orchestrator.files import claims
from orchestrator.files.check import Task, Verdict
from tests.orchestrator.files.conftest import World

GOOD = Verdict(sha256="abc")


def claim(world: World) -> Task | None:
    with world.sessions() as session:
        return claims.claim(session)


def test_the_oldest_file_is_claimed_first_and_once(world: World) -> None:
    first, second = world.add_file(), world.add_file()
    world.add_file(status="processed")
    claimed = [claim(world), claim(world), claim(world)]
    assert [task and task.file_id for task in claimed] == [first, second, None]


def test_a_claim_that_is_renewed_stays_and_one_that_is_not_is_taken_over(world: World) -> None:
    file = world.add_file()
    task = claim(world)
    assert task is not None
    world.age_claim(file, 59)
    assert claim(world) is None
    world.age_claim(file, 2)
    taken = claim(world)
    assert taken is not None
    assert (taken.file_id, taken.tries) == (file, 2)
    with world.sessions() as session:
        assert claims.renew(session, task) is None
        renewed = claims.renew(session, taken)
        assert renewed is not None
        assert renewed > taken.claimed_at


def test_who_lost_a_claim_writes_nothing(world: World) -> None:
    file = world.add_file()
    late = claim(world)
    world.age_claim(file, 61)
    taken = claim(world)
    assert late is not None and taken is not None
    with world.sessions() as session:
        claims.finish(session, late, Verdict(problem="seen too late"))
        claims.give_back(session, late, counts=False)
        assert world.file(file).claimed_at == taken.claimed_at
        claims.finish(session, taken, GOOD)
    assert (world.file(file).status, world.file(file).sha256) == ("processed", "abc")


@pytest.mark.parametrize(("counts", "tries"), [(True, 2), (False, 1)])
def test_what_is_given_back_is_free_at_once_and_counts_where_the_file_may_be_why(
    world: World, counts: bool, tries: int
) -> None:
    world.add_file()
    task = claim(world)
    assert task is not None
    with world.sessions() as session:
        claims.give_back(session, task, counts=counts)
    again = claim(world)
    assert again is not None
    assert again.tries == tries


def test_what_waits_for_the_store_is_not_tried_at_once(world: World) -> None:
    file = world.add_file()
    task = claim(world)
    assert task is not None
    with world.sessions() as session:
        claims.give_back(session, task, counts=False, after=timedelta(seconds=30))
    assert claim(world) is None
    world.age_claim(file, 31)
    assert claim(world) is not None


def test_a_file_that_was_deleted_meanwhile_is_forgotten(world: World) -> None:
    file = world.add_file()
    task = claim(world)
    assert task is not None
    with world.sessions() as session:
        session.delete(world.file(file))
        session.commit()
        assert claims.renew(session, task) is None
        claims.finish(session, task, GOOD)
    assert not world.has_file(file)


def test_a_problem_makes_the_status_an_error_and_keeps_the_report(world: World) -> None:
    file = world.add_file()
    task = claim(world)
    assert task is not None
    report = Report(
        format="x",
        is_usable=False,
        rows=2,
        samples=0,
        turns=0,
        media={},
        text_only=0,
        inline_bytes=0,
        duplicates=0,
        duplicates_are_exact=True,
        tokens=None,
        bad_rows=2,
        bad_share=1.0,
        first_bad=(),
    )
    with world.sessions() as session:
        claims.finish(session, task, Verdict(report=report, problem="all rows are bad"))
    stored = world.file(file)
    assert (stored.status, stored.status_details, stored.rows) == ("error", "all rows are bad", 2)
    assert Report.model_validate(stored.check) == report
