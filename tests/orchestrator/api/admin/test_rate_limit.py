"""A project's requests a minute, as OpenAI's client meets the limit."""

from __future__ import annotations

import time
from collections.abc import Iterator

import openai
import pytest

from orchestrator.tenants.rate_limit import RateLimiter
from tests.orchestrator.api.service import Live, Service
from tests.orchestrator.api.tenants import Tenant, new_project


@pytest.fixture
def limited(database: str, service: Service) -> Iterator[Tenant]:
    """A project of three requests a minute, at a moment that does not pass."""
    limiter = service.app.state.limiter
    service.app.state.limiter = RateLimiter(lambda: 0.0)
    yield new_project(database, requests_per_minute=3)
    service.app.state.limiter = limiter


def test_who_asks_too_often_is_told_when_to_come_back(live: Live, limited: Tenant) -> None:
    client = live.openai(limited.key, max_retries=0)
    for _ in range(3):
        client.fine_tuning.jobs.list()
    with pytest.raises(openai.RateLimitError, match="3 requests a minute: try again in 20 s") as caught:
        client.fine_tuning.jobs.list()
    assert (caught.value.response.headers["retry-after"], caught.value.code) == ("20", "rate_limit_exceeded")
    assert "x-should-retry" not in caught.value.response.headers


def test_the_clients_own_retries_come_through(live: Live, service: Service, database: str) -> None:
    tenant = new_project(database, requests_per_minute=60)  # one more each second
    client = live.openai(tenant.key, max_retries=2)
    service.app.state.limiter.take(tenant.project_id, 60)
    while service.app.state.limiter.take(tenant.project_id, 60) == 0:
        pass
    began = time.monotonic()
    raw = client.fine_tuning.jobs.with_raw_response.list()
    assert raw.retries_taken == 1
    assert time.monotonic() - began >= 0.5


def test_other_projects_are_not_held_up(live: Live, limited: Tenant, database: str) -> None:
    client = live.openai(limited.key, max_retries=0)
    for _ in range(3):
        client.fine_tuning.jobs.list()
    other = live.openai(new_project(database, requests_per_minute=3).key, max_retries=0)
    assert other.fine_tuning.jobs.list().data == []


def test_refused_requests_count_too(service: Service, limited: Tenant) -> None:
    path = "/v1/organization/projects"
    statuses = [service.http.get(path, headers=limited.headers).status_code for _ in range(4)]
    assert statuses == [403, 403, 403, 429]
