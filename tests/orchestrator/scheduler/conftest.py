"""A database, an object store with a base, and a cluster that does what a test tells it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract import layout
from ibllm_core.storage import ObjectStore
from orchestrator.db.session import connect, migrate, session_factory
from orchestrator.jobs.catalogue import Catalogue
from orchestrator.jobs.prepare import Shop
from tests.ibllm_core.formats.object_store import RunningStore, running_store
from tests.orchestrator.api.postgres import RunningPostgres, running_postgres
from tests.orchestrator.scheduler.house import BASE, House


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        ObjectStore(running.settings).put_json(layout.manifest(layout.base(BASE)), {"files": {}})
        yield running


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPostgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="package")
def database(postgres: RunningPostgres) -> str:
    address = postgres.new_database("ibllm")
    migrate(address)
    return address


@pytest.fixture
def house(database: str, running: RunningStore) -> Iterator[House]:
    engine = connect(database)
    sessions: sessionmaker[Session] = session_factory(engine)
    store = ObjectStore(running.settings)
    shop = Shop(store=store, catalogue=Catalogue(store), default_encoder="efficientnet-lite0", local_data=False)
    house = House(database, sessions, shop)
    yield house
    house.end()
    engine.dispose()
