"""One request makes one job, however often it arrives: by its Idempotency-Key, or as a client's own retry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from httpx2 import Response
from openai import OpenAI
from sqlalchemy import select

from orchestrator.db.models import AuditEntry, Event, Job, Run
from orchestrator.db.session import connect, session_factory
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.ibllm_core.formats.object_store import PEOPLE
from tests.orchestrator.api.lossy import lossy
from tests.orchestrator.api.service import BASE, ENCODER, Live, Service, error_of
from tests.orchestrator.api.tenants import Tenant, new_project

JOBS = "/v1/fine_tuning/jobs"
AT_ONCE = 8


@pytest.fixture(scope="module")
def place(service: Service) -> str:
    """Data that all projects here may read."""
    service.running.put("replays/rows.jsonl", json_lines([chat_row()]))
    return f"s3://{PEOPLE}/replays/"


@pytest.fixture
def tenant(database: str, place: str) -> Tenant:
    return new_project(database, data_prefixes=[place])


@pytest.fixture
def body(place: str) -> dict[str, Any]:
    stages = [{"stage": "stage1", "training_file": f"{place}rows.jsonl"}]
    return {"model": BASE, "encoder": ENCODER, "stages": stages}


def create(service: Service, tenant: Tenant, body: dict[str, Any], key: str | None = None) -> Response:
    headers = tenant.headers | ({"idempotency-key": key} if key else {})
    return service.http.post(JOBS, json=body, headers=headers)


def jobs_of(database: str, tenant: Tenant) -> list[str]:
    """Ids of a project's jobs, each of which is whole: its runs, its first event, its audit entry."""
    with session_factory(connect(database))() as session:
        jobs = session.scalars(select(Job.id).where(Job.project_id == tenant.project_id)).all()
        for job in jobs:
            assert session.scalars(select(Run.kind).where(Run.job_id == job)).all() == ["compile", "stage1"]
            assert len(session.scalars(select(Event).where(Event.job_id == job)).all()) == 1
            assert session.scalars(select(AuditEntry.action).where(AuditEntry.target == job)).all() == [
                "fine_tuning.job.created"
            ]
        return list(jobs)


def test_a_repeated_key_finds_the_first_job(
    service: Service, database: str, tenant: Tenant, body: dict[str, Any]
) -> None:
    first, second = (create(service, tenant, body, "once").json() for _ in range(2))
    assert first["id"] == second["id"]
    assert jobs_of(database, tenant) == [first["id"]]


def test_a_key_that_comes_with_another_request_is_refused(
    service: Service, database: str, tenant: Tenant, body: dict[str, Any]
) -> None:
    first = create(service, tenant, body, "once").json()["id"]
    answer = create(service, tenant, {**body, "seed": 1}, "once")
    error = error_of(answer, 409)
    assert (error["param"], error["code"]) == ("Idempotency-Key", "idempotency_key_reused")
    assert error["message"].endswith("send a new key with a new request") and first in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert jobs_of(database, tenant) == [first]


def test_the_key_of_another_project_is_another_key(
    service: Service, database: str, tenant: Tenant, place: str, body: dict[str, Any]
) -> None:
    other = new_project(database, data_prefixes=[place])
    made = [create(service, who, body, "once").json()["id"] for who in (tenant, other)]
    assert (jobs_of(database, tenant), jobs_of(database, other)) == ([made[0]], [made[1]])


def test_a_refused_request_does_not_use_its_key_up(
    service: Service, database: str, tenant: Tenant, body: dict[str, Any]
) -> None:
    assert create(service, tenant, {**body, "model": "none"}, "once").status_code == 400
    made = create(service, tenant, body, "once").json()["id"]
    assert jobs_of(database, tenant) == [made]


def test_of_many_requests_with_one_key_at_once_one_makes_the_job(
    service: Service, database: str, tenant: Tenant, body: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: create(service, tenant, body, "once"), range(AT_ONCE)))
    assert [answer.status_code for answer in answers] == [200] * AT_ONCE
    assert {answer.json()["id"] for answer in answers} == set(jobs_of(database, tenant))
    assert len(jobs_of(database, tenant)) == 1


def test_the_last_place_in_the_queue_is_taken_once(
    service: Service, database: str, place: str, body: dict[str, Any]
) -> None:
    narrow = new_project(database, data_prefixes=[place], max_queued_jobs=1)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: create(service, narrow, body), range(AT_ONCE)))
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * (AT_ONCE - 1)
    assert len(jobs_of(database, narrow)) == 1


def by_sdk(client: OpenAI, body: dict[str, Any], **options: Any) -> str:
    ours = {"encoder": body["encoder"], "stages": body["stages"]}
    return client.fine_tuning.jobs.create(
        model=BASE, training_file=body["stages"][0]["training_file"], extra_body=ours, **options
    ).id


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}], ids=["bare", "with a key"])
@pytest.mark.parametrize("losses", [1, 2])
def test_a_clients_own_retry_finds_the_job_whose_answer_was_lost(
    live: Live, database: str, tenant: Tenant, body: dict[str, Any], headers: dict[str, str], losses: int
) -> None:
    with lossy(live, losses) as wire:
        made = by_sdk(wire.live.openai(tenant.key), body, extra_headers=headers)
    tries = [request for request in wire.requests if request.startswith(b"POST ")]
    assert len(tries) == 1 + losses
    assert b"x-stainless-retry-count: %d" % losses in tries[-1].lower()
    assert jobs_of(database, tenant) == [made]


def test_a_client_that_gives_up_left_one_job(live: Live, database: str, tenant: Tenant, body: dict[str, Any]) -> None:
    with lossy(live, 3) as wire, pytest.raises(openai.APIConnectionError):
        by_sdk(wire.live.openai(tenant.key), body)
    assert len(jobs_of(database, tenant)) == 1


def test_two_requests_that_are_meant_make_two_jobs(
    live: Live, database: str, tenant: Tenant, body: dict[str, Any]
) -> None:
    client = live.openai(tenant.key)
    made = {by_sdk(client, body), by_sdk(client, body)}
    assert len(made) == 2
    assert set(jobs_of(database, tenant)) == made
