"""Whatever a file does to its reader, there is a verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ibllm_core.contract import layout
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from orchestrator.files import check
from orchestrator.files.check import Task, Verdict, verdict_of
from tests.ibllm_core.formats.files import json_lines
from tests.orchestrator.files.conftest import World


def task_of(file_id: str, **changes: Any) -> Task:
    values = {
        "file_id": file_id,
        "key": layout.file(file_id),
        "filename": "rows.jsonl",
        "has_sha256": True,
        "count_with": None,
        "data_prefixes": (),
        "claimed_at": datetime.now(UTC),
        "tries": 1,
    }
    return Task(**{**values, **changes})


def test_bytes_that_are_gone_are_a_problem(world: World) -> None:
    for has_sha256 in (True, False):
        verdict = verdict_of(world.store, task_of("file-none", has_sha256=has_sha256))
        assert verdict == Verdict(problem="its bytes are not in the object store: upload it again")


def test_a_store_that_does_not_answer_is_an_outage() -> None:
    away = ObjectStore(StorageSettings(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b"))
    verdict = verdict_of(away, task_of("file-1"))
    assert (verdict.problem, verdict.report) == (None, None)
    assert "cannot be reached" in str(verdict.outage)


def test_media_that_the_project_may_not_read_are_bad_rows(world: World) -> None:
    file = world.add_file(json_lines([{"image": "s3://people/cats/1.png", "caption": "a cat"}]))
    refused = verdict_of(world.store, task_of(file, data_prefixes=("s3://people/dogs/",)))
    assert "this project may not read 's3://people/cats/1.png'" in str(refused.problem)
    assert verdict_of(world.store, task_of(file, data_prefixes=("s3://people/cats/",))).problem is None


def test_a_base_that_was_removed_is_a_problem(world: World) -> None:
    file = world.add_file()
    verdict = verdict_of(world.store, task_of(file, count_with={"base": "none", "template": "alpaca"}))
    assert "lengths cannot be counted with base 'none'" in str(verdict.problem)


@pytest.mark.parametrize(
    ("error", "problem"),
    [(ZeroDivisionError(), "nobody foresaw (ZeroDivisionError)"), (MemoryError(), "more memory than a check may have")],
)
def test_a_reader_that_fails_leaves_an_honest_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(check, "open_dataset", broken)
    verdict = verdict_of(world.store, task_of(world.add_file()))
    assert problem in str(verdict.problem)
    assert ("Traceback" in str(verdict.trace)) is isinstance(error, ZeroDivisionError)
