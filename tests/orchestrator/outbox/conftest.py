"""A database with an empty outbox for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session, sessionmaker

from orchestrator.db.models import OutboxMessage
from orchestrator.db.session import connect, migrate, session_factory
from tests.orchestrator.api.postgres import RunningPostgres, running_postgres


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPostgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="package")
def database(postgres: RunningPostgres) -> str:
    address = postgres.new_database("outbox")
    migrate(address)
    return address


@pytest.fixture
def sessions(database: str) -> Iterator[sessionmaker[Session]]:
    engine = connect(database)
    sessions = session_factory(engine)
    yield sessions
    with sessions.begin() as session:
        session.execute(delete(OutboxMessage))
    engine.dispose()
