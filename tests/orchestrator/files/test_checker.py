"""Every file gets its verdict once, whatever happens to those who check."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.files import claims
from orchestrator.files.checker import MAX_TRIES
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.ibllm_core.formats.object_store import RunningStore
from tests.orchestrator.files.checkers import CheckerProcess, running_checker, until
from tests.orchestrator.files.conftest import World

# Some seconds of reading, so that a check can be met in its middle.
LONG_ROWS = 100_000
LONG = json_lines([chat_row()]) * LONG_ROWS


@pytest.fixture
def checker(database: str, running: RunningStore, tmp_path: Path) -> Iterator[CheckerProcess]:
    with running_checker(database, running, tmp_path) as checker:
        yield checker


def is_checked(world: World, file_id: str) -> bool:
    return world.file(file_id).status != "uploaded"


def is_claimed(world: World, file_id: str) -> bool:
    return world.file(file_id).claimed_at is not None


def test_a_file_is_checked_and_hashed(world: World, checker: CheckerProcess) -> None:
    content = json_lines([chat_row()] * 3)
    unknown, known = world.add_file(content), world.add_file(content, sha256="told before")
    until(lambda: is_checked(world, unknown) and is_checked(world, known))
    file = world.file(unknown)
    assert (file.status, file.rows, file.claimed_at) == ("processed", 3, None)
    assert file.check is not None
    assert (file.check["stage"], file.check["samples"]) == ("stage2", 3)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert world.file(known).sha256 == "told before"


def test_the_file_of_a_killed_checker_is_another_ones(
    world: World, checker: CheckerProcess, database: str, running: RunningStore, tmp_path: Path
) -> None:
    file = world.add_file(LONG)
    until(lambda: is_claimed(world, file))
    checker.kill()
    assert not is_checked(world, file)
    with running_checker(database, running, tmp_path):
        small = world.add_file()
        until(lambda: is_checked(world, small))
        assert not is_checked(world, file)  # since the claim could still be renewed
        world.age_claim(file, claims.LEASE.total_seconds())
        until(lambda: is_checked(world, file))
    assert (world.file(file).status, world.file(file).rows) == ("processed", LONG_ROWS)
    assert world.file(file).check_tries == 2


def test_a_checker_that_is_stopped_gives_its_file_back(world: World, checker: CheckerProcess) -> None:
    file = world.add_file(LONG)
    until(lambda: is_claimed(world, file))
    checker.stop()
    with world.sessions() as session:
        task = claims.claim(session)
    assert task is not None
    assert (task.file_id, task.tries) == (file, 1)


def test_a_check_that_dies_is_tried_again_and_the_checker_goes_on(world: World, checker: CheckerProcess) -> None:
    file = world.add_file(LONG)
    for tries in range(1, MAX_TRIES + 1):
        until(lambda tries=tries: world.file(file).check_tries == tries)
        checker.kill_check()
    until(lambda: is_checked(world, file))
    assert world.file(file).status == "error"
    assert f"its check died {MAX_TRIES} times, as when memory runs out" in str(world.file(file).status_details)
    small = world.add_file()
    until(lambda: is_checked(world, small))


def test_two_checkers_check_each_file_once(world: World, database: str, running: RunningStore, tmp_path: Path) -> None:
    files = [world.add_file() for _ in range(12)]
    with running_checker(database, running, tmp_path), running_checker(database, running, tmp_path):
        until(lambda: all(is_checked(world, file) for file in files))
    assert {world.file(file).check_tries for file in files} == {1}


def test_an_idle_checker_keeps_its_heart_beating(checker: CheckerProcess) -> None:
    first = checker.heartbeat.stat().st_mtime_ns
    until(lambda: checker.heartbeat.stat().st_mtime_ns > first)
