"""The schema of this version, on a new database and on one with rows of the version before."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import select, text

import orchestrator.db
from orchestrator.db.models import Base, File, Job
from orchestrator.db.session import connect, migrate, session_factory
from tests.orchestrator.api.postgres import RunningPostgres

OLD_JOB = """
INSERT INTO jobs (id, status, request, cancel_requested, result_files, finished_at)
VALUES ('ftjob-1', 'succeeded', '{}', false, '[]', '2026-01-01T00:00:00Z'),
       ('ftjob-2', 'queued', '{}', false, '[]', NULL)
"""
OLD_FILE = """
INSERT INTO files (id, key, filename, purpose, bytes, sha256, status, rows)
VALUES ('file-1', 'files/file-1/content', 'rows.jsonl', 'fine-tune', 10, 'abc', 'processed', 2)
"""


def upgrade(address: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(orchestrator.db.__path__[0]) / "migrations"))
    config.attributes["database_url"] = address
    command.upgrade(config, revision)


@pytest.fixture
def old(postgres: RunningPostgres) -> str:
    """A database of the first version with a file in it."""
    address = postgres.new_database("old")
    upgrade(address, "0001")
    with connect(address).begin() as connection:
        connection.execute(text(OLD_FILE))
    return address


def test_rows_of_the_first_version_stay_and_have_no_check(old: str) -> None:
    migrate(old)
    migrate(old)  # and once more does nothing
    with session_factory(connect(old))() as session:
        file = session.scalars(select(File)).one()
        assert (file.id, file.rows, file.status, file.check) == ("file-1", 2, "processed", None)
        file.check = {"samples": 2}
        session.commit()
        assert session.scalars(select(File.check)).one() == {"samples": 2}


def test_models_of_the_first_version_are_not_registered_again(postgres: RunningPostgres) -> None:
    address = postgres.new_database("old-jobs")
    upgrade(address, "0001")
    with connect(address).begin() as connection:
        connection.execute(text(OLD_JOB))
    migrate(address)
    with session_factory(connect(address))() as session:
        closed = dict(session.execute(select(Job.id, Job.tracking_closed_at)).tuples().all())
    assert closed == {"ftjob-1": datetime(2026, 1, 1, tzinfo=UTC), "ftjob-2": None}


def test_the_migrations_make_the_tables_of_the_models(database: str) -> None:
    with connect(database).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
