"""One MLflow, one PostgreSQL and one object store for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.db.session import migrate
from orchestrator.registry.mlflow_registry import Registry
from tests.ibllm_core.formats.object_store import RunningStore, running_store
from tests.orchestrator.api.postgres import running_postgres
from tests.orchestrator.registry.mlflow_server import MlflowServer, running_mlflow

TIMEOUT_SECONDS = 3


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # put back what ``Registry`` sets
        environment.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
        with running_mlflow(tmp_path_factory.mktemp("mlflow")) as running:
            yield running


@pytest.fixture
def mlflow(server: MlflowServer) -> MlflowServer:
    """The server, brought back where a test left it dead."""
    if server._process is None:
        server.start()
    server.go_on()
    return server


@pytest.fixture
def registry(mlflow: MlflowServer) -> Registry:
    return Registry(mlflow.url, TIMEOUT_SECONDS)


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="package")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as postgres:
        address = postgres.new_database("ibllm")
        migrate(address)
        yield address
