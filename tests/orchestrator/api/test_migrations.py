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
from orchestrator.db.models import Base, File, Job, Model, Project
from orchestrator.db.session import connect, migrate, session_factory
from orchestrator.errors import AuthenticationError
from orchestrator.tenants.authentication import Shown, authenticate
from orchestrator.tenants.bootstrap import ensure_operator
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


FINISHED_JOB = """
INSERT INTO jobs (id, status, request, cancel_requested, result_files, finished_at, fine_tuned_model, idempotency_key)
VALUES ('ftjob-9', 'succeeded', '{"model": "m", "encoder": "e", "metadata": {"team": "birds"}}', false, '[]',
        '2026-01-01T00:00:00Z', 'ft:m:9', 'once')
"""
RUNS = """
INSERT INTO runs (id, job_id, position, kind, state, version, outputs)
VALUES ('ftjob-9-stage1', 'ftjob-9', 1, 'stage1', 'done', 1, '{"adapter": "jobs/ftjob-9/stage1/adapter"}'),
       ('ftjob-9-stage2', 'ftjob-9', 2, 'stage2', 'done', 1, '{"adapter": "models/ftjob-9", "adapter_sha256": "abc"}')
"""
ATTEMPT = "INSERT INTO attempts (id, run_id, number, token) VALUES ('ftjob-9-stage2-1', 'ftjob-9-stage2', 1, 'secret')"


def upgrade(address: str, revision: str) -> None:
    command.upgrade(config_of(address), revision)


def config_of(address: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(orchestrator.db.__path__[0]) / "migrations"))
    config.attributes["database_url"] = address
    return config


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


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_what_was_there_belongs_to_the_default_project(postgres: RunningPostgres, revision: str) -> None:
    address = postgres.new_database(f"from-{revision}")
    upgrade(address, revision)
    with connect(address).begin() as connection:
        for statement in (FINISHED_JOB, RUNS, ATTEMPT, OLD_FILE):
            connection.execute(text(statement))
    migrate(address)
    with session_factory(connect(address))() as session:
        job = session.get_one(Job, "ftjob-9")
        assert (job.project_id, job.labels, job.idempotency_key) == ("proj-default", {"team": "birds"}, "once")
        assert job.runs[1].attempts[0].project_id == session.get_one(File, "file-1").project_id == "proj-default"
        model = session.scalars(select(Model)).one()
        assert (model.id, model.job_id, model.prefix, model.encoder) == ("ft:m:9", "ftjob-9", "models/ftjob-9", "e")
        assert session.get_one(Project, "proj-default").data_prefixes == ["s3://", "/"]
        ensure_operator(session, "the-key")
        ensure_operator(session, "another-key")
        assert authenticate(session, Shown(token="another-key")).project == "proj-default"
        with pytest.raises(AuthenticationError):
            authenticate(session, Shown(token="the-key"))


def test_the_newest_migration_can_be_taken_back(postgres: RunningPostgres) -> None:
    address = postgres.new_database("back")
    migrate(address)
    command.downgrade(config_of(address), "0003")
    migrate(address)
    with connect(address).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_the_migrations_make_the_tables_of_the_models(database: str) -> None:
    with connect(database).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
