"""The service on a port, a client for it, and a hand that does the scheduler's work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.client import Client
from tests.orchestrator.api.conftest import database, live, postgres, running, service
from tests.orchestrator.api.service import API_KEY, Live
from tests.orchestrator.client.scripted import ScriptedServer, scripted_server
from tests.orchestrator.client.work import Work

__all__ = ["database", "live", "postgres", "running", "service"]


@pytest.fixture(scope="package")
def client(live: Live) -> Iterator[Client]:
    with Client(live.base_url, API_KEY) as client:
        yield client


@pytest.fixture(scope="package")
def work(database: str) -> Work:
    return Work(database)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server
