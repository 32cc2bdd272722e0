"""One service for the tests of this folder: PostgreSQL, an object store with a tiny base, the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ibllm_core.contract import layout
from orchestrator.db.session import migrate
from tests.conftest import word_tokenizer
from tests.ibllm_core.formats.object_store import RunningStore, running_store
from tests.orchestrator.api.postgres import RunningPostgres, running_postgres
from tests.orchestrator.api.service import BASE, Live, Service, checking, serving, settings_of, start


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPostgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="package")
def database(postgres: RunningPostgres) -> str:
    """A database of this version's schema."""
    address = postgres.new_database("ibllm")
    migrate(address)
    return address


@pytest.fixture(scope="package")
def service(database: str, running: RunningStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("IBLLM_LOCAL_DATA", raising=False)
        for key, value in settings_of(database, running).items():
            environment.setenv(key, value)
        service = start(running)
    folder = tmp_path_factory.mktemp("base")
    word_tokenizer().save_pretrained(folder)
    service.store.upload_folder(layout.base(BASE), folder)
    with service.http, checking(database, running):
        yield service


@pytest.fixture(scope="package")
def live(service: Service) -> Iterator[Live]:
    """The service on a port, with its checker."""
    with serving(service.app) as live:
        yield live
