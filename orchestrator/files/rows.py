"""Rows of files: found in their project, made of a finished upload, kept while a job needs them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, cast, exists, func, select
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.contract.states import FINAL_STATUSES
from orchestrator.db.models import File, Job, Upload
from orchestrator.errors import NotFoundError

# Wherever a request names data: in its stages, in their mixes, or beside them.
NAMES_FILE = "$.** ? (@.training_file == $id || @.validation_file == $id || @.file == $id)"


def find(session: Session, project_id: str, file_id: str, *, param: str | None = None, lock: bool = False) -> File:
    """A project's file by its id, or ``NotFoundError``; ``lock`` keeps it as it is until the transaction ends."""
    query = select(File).where(File.id == file_id, File.project_id == project_id)
    file = session.scalar(query.with_for_update() if lock else query)
    if file is None:
        raise missing(file_id, param)
    return file


def keep(session: Session, project_id: str, file_ids: Collection[str]) -> dict[str, File]:
    """Those of some files that the project has; nobody deletes them until the transaction ends."""
    if not file_ids:
        return {}
    query = select(File).where(File.id.in_(file_ids), File.project_id == project_id)
    return {file.id: file for file in session.scalars(query.with_for_update(read=True, key_share=True))}


def missing(file_id: str, param: str | None = None) -> NotFoundError:
    """That there is no such file, or none that the project may see."""
    return NotFoundError(f"there is no file {file_id!r}: upload it with POST /v1/files", param=param)


def id_of(upload_id: str) -> str:
    """The id of the file that an upload becomes, known from its start: a second try writes the same object."""
    return f"file-{upload_id.removeprefix('upload-')}"


def of_upload(upload: Upload, sha256: str | None) -> File:
    """The file that an upload has become, to be checked."""
    file_id, now = id_of(upload.id), datetime.now(UTC)
    life = upload.file_expires_after
    return File(
        id=file_id,
        project_id=upload.project_id,
        created_at=now,
        expires_at=None if life is None else now + timedelta(seconds=life),
        key=layout.file(file_id),
        filename=upload.filename,
        purpose=upload.purpose,
        bytes=upload.bytes,
        sha256=sha256,
        status="uploaded",
        count_with=upload.count_with,
    )


def job_using(session: Session, file: File) -> str | None:
    """The id of a job that has not ended and may still read a file."""
    return session.scalar(select(Job.id).where(_uses(file.project_id, file.id)).limit(1))


def is_in_use() -> ColumnElement[bool]:
    """The same as a condition on ``File``."""
    return exists().where(_uses(File.project_id, File.id))


def _uses(project_id: object, file_id: object) -> ColumnElement[bool]:
    named = func.jsonb_path_exists(Job.request, cast(NAMES_FILE, JSONPATH), func.jsonb_build_object("id", file_id))
    return (Job.project_id == project_id) & Job.status.not_in(FINAL_STATUSES) & named
