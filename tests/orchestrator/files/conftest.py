"""A database and an object store for the checker and the sweeper, and what is put into them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from ibllm_core.contract import layout
from ibllm_core.storage import ObjectStore
from orchestrator.db.models import File, Upload
from orchestrator.db.session import connect, session_factory
from orchestrator.ids import new_id
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.ibllm_core.formats.object_store import RunningStore
from tests.orchestrator.api.conftest import database, postgres, running
from tests.orchestrator.api.tenants import new_project

__all__ = ["database", "postgres", "running"]


@dataclass(frozen=True)
class World:
    """What processes without the API share."""

    database: str
    sessions: sessionmaker[Session]
    store: ObjectStore
    project_id: str

    def add_file(self, content: bytes | None = None, **changes: Any) -> str:
        """A file that nobody has checked, by default of one good row."""
        file_id = new_id("file")
        content = json_lines([chat_row()]) if content is None else content
        values = {
            "id": file_id,
            "project_id": self.project_id,
            "key": layout.file(file_id),
            "filename": "rows.jsonl",
            "purpose": "fine-tune",
            "bytes": len(content),
            "status": "uploaded",
        }
        self.store.put(layout.file(file_id), content)
        with self.sessions() as session:
            session.add(File(**{**values, **changes}))
            session.commit()
        return file_id

    def add_upload(self, **changes: Any) -> str:
        """An upload that was begun."""
        upload_id = new_id("upload")
        values = {
            "id": upload_id,
            "project_id": self.project_id,
            "expires_at": datetime.now(UTC) + timedelta(hours=1),
            "bytes": 1,
            "filename": "rows.jsonl",
            "mime_type": "text/plain",
            "purpose": "fine-tune",
        }
        with self.sessions() as session:
            session.add(Upload(**{**values, **changes}))
            session.commit()
        return upload_id

    def file(self, file_id: str) -> File:
        with self.sessions() as session:
            return session.get_one(File, file_id)

    def has_file(self, file_id: str) -> bool:
        with self.sessions() as session:
            return session.get(File, file_id) is not None

    def upload(self, upload_id: str) -> Upload:
        with self.sessions() as session:
            return session.get_one(Upload, upload_id)

    def age_claim(self, file_id: str, seconds: float) -> None:
        """As if so much time had gone by since somebody said that he checks the file."""
        with self.sessions() as session:
            aged = File.claimed_at - timedelta(seconds=seconds)
            session.execute(update(File).where(File.id == file_id).values(claimed_at=aged))
            session.commit()


@pytest.fixture(scope="package")
def shared_world(database: str, running: RunningStore) -> Iterator[World]:
    engine = connect(database)
    yield World(database, session_factory(engine), ObjectStore(running.settings), "")
    engine.dispose()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """A project of its own; no file of an earlier test waits for a check."""
    yield replace(shared_world, project_id=new_project(shared_world.database).project_id)
    with shared_world.sessions() as session:
        session.execute(update(File).where(File.status == "uploaded").values(status="processed"))
        session.commit()
