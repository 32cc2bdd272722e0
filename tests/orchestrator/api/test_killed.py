"""kill -9 of the API between any two steps of a create: the client's own retry gets one whole job, never two."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import IO, Any

import pytest
from openai import OpenAI
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from orchestrator.db.models import AuditEntry, Event, Job, Run
from orchestrator.db.session import connect, session_factory
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.ibllm_core.formats.object_store import PEOPLE, RunningStore
from tests.orchestrator.api.service import BASE, ENCODER, Live, Service, settings_of
from tests.orchestrator.api.tenants import new_project

PLACE = f"s3://{PEOPLE}/killed/"
MANY = 10  # moments that there are at least: a create looks, locks and writes


@dataclass(frozen=True)
class Killed:
    """The API in a process of its own, where each life ends at a chosen moment of its first POST."""

    live: Live
    lines: IO[str]
    answers: IO[str]

    @contextmanager
    def at(self, moment: int) -> Iterator[list[bool]]:
        """Serve; afterwards the list says whether the moment came, and the API was killed and started anew."""
        was_killed: list[bool] = []
        print(moment, file=self.lines, flush=True)
        yield was_killed
        print(file=self.lines, flush=True)
        was_killed.append(self.answers.readline() == "killed\n")


@pytest.fixture(scope="module")
def killed(service: Service, database: str, running: RunningStore) -> Iterator[Killed]:
    service.running.put("killed/rows.jsonl", json_lines([chat_row()]))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.orchestrator.api.killed_api"],
        env={**os.environ, **settings_of(database, running)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    with process:
        yield Killed(Live(f"http://127.0.0.1:{int(process.stdout.readline())}/v1"), process.stdin, process.stdout)
        process.stdin.close()


@pytest.fixture
def sessions(database: str) -> Iterator[sessionmaker[Session]]:
    engine = connect(database)
    yield session_factory(engine)
    engine.dispose()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's client as it is, but for half a second before each retry."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}], ids=["bare", "with a key"])
def test_a_create_that_is_cut_anywhere_makes_one_whole_job(
    killed: Killed, database: str, sessions: sessionmaker[Session], headers: dict[str, str]
) -> None:
    for moment in count(1):
        tenant = new_project(database, data_prefixes=[PLACE])  # a key's first use writes too
        with killed.at(moment) as was_killed:
            made = create(killed.live.openai(tenant.key), headers)
        assert_one_whole_job(sessions, tenant.project_id, made)
        if not was_killed[0]:
            break
    assert moment > MANY


def create(client: OpenAI, headers: dict[str, str]) -> str:
    data: dict[str, Any] = {"stages": [{"stage": "stage1", "training_file": f"{PLACE}rows.jsonl"}]}
    with client:
        return client.fine_tuning.jobs.create(
            model=BASE,
            training_file=f"{PLACE}rows.jsonl",
            extra_body={"encoder": ENCODER, **data},
            extra_headers=headers,
        ).id


def assert_one_whole_job(sessions: sessionmaker[Session], project_id: str, made: str) -> None:
    with sessions() as session:
        assert session.scalars(select(Job.id).where(Job.project_id == project_id)).all() == [made]
        runs = session.scalars(select(Run.kind).where(Run.job_id == made).order_by(Run.position)).all()
        events = session.scalars(select(Event.message).where(Event.job_id == made)).all()
        deeds = session.scalars(select(AuditEntry.action).where(AuditEntry.project_id == project_id)).all()
    assert (runs, events) == (["compile", "stage1"], ["the job is queued with the runs compile, stage1"])
    assert deeds == ["fine_tuning.job.created"]
