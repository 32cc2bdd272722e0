"""``/v1/files``: upload, list, read, delete. A training file is checked row by row before it counts as processed."""

from __future__ import annotations

import hashlib
from pathlib import PureWindowsPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from sqlalchemy import select, tuple_

from ibllm_core.contract import layout
from orchestrator.api.dependencies import SessionOf, SettingsOf, StoreOf, require_key
from orchestrator.api.file_check import check_upload, open_counter
from orchestrator.api.pages import page
from orchestrator.db.models import File
from orchestrator.errors import InvalidRequestError, NotFoundError
from orchestrator.ids import new_id

router = APIRouter(prefix="/files", tags=["files"], dependencies=[Depends(require_key)])


@router.post("")
def upload(
    file: UploadFile,
    purpose: Annotated[str, Form()],
    session: SessionOf,
    store: StoreOf,
    settings: SettingsOf,
    base: Annotated[str | None, Form()] = None,
    template: Annotated[str, Form()] = "alpaca",
) -> dict[str, Any]:
    """Store a file and check it; one that a job would refuse is kept with ``status`` "error" and the reasons.

    ``base`` names a base model, with whose tokenizer the samples' lengths are counted, as they are under ``template``.
    """
    if purpose != "fine-tune":
        raise InvalidRequestError(f"purpose must be fine-tune, but is {purpose!r}", param="purpose")
    if (file.size or 0) > settings.max_file_mb << 20:
        raise InvalidRequestError(f"the file is larger than {settings.max_file_mb} MB: split it", param="file")
    count_tokens = open_counter(store, base, template)
    identity = new_id("file")
    digest = hashlib.file_digest(file.file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.file.seek(0)
    store.upload(layout.file(identity), file.file)
    filename = _name_of(file)
    found = check_upload(store, layout.file(identity), filename, count_tokens)
    stored = File(
        id=identity,
        key=layout.file(identity),
        filename=filename,
        purpose=purpose,
        bytes=file.size or 0,
        sha256=digest,
        status="error" if found.problem else "processed",
        status_details=found.problem,
        rows=found.report.rows if found.report else None,
        check=found.report.model_dump() if found.report else None,
    )
    session.add(stored)
    session.commit()
    session.refresh(stored)
    return shown(stored)


def _name_of(file: UploadFile) -> str:
    """The name without folders, of whichever system, and without what cannot be shown: a name is not a place."""
    name = PureWindowsPath(file.filename or "").name
    return "".join(letter for letter in name if letter.isprintable()) or "upload.jsonl"


@router.get("")
def list_files(
    session: SessionOf,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10000)] = 10000,
    purpose: str | None = None,
) -> dict[str, Any]:
    """Files, newest first."""
    query = select(File).order_by(File.created_at.desc(), File.id.desc()).limit(limit + 1)
    if purpose:
        query = query.where(File.purpose == purpose)
    if after:
        cursor = find(session, after, param="after")
        query = query.where(tuple_(File.created_at, File.id) < (cursor.created_at, cursor.id))
    return page(session.scalars(query).all(), limit, shown)


@router.get("/{file_id}")
def retrieve(file_id: str, session: SessionOf) -> dict[str, Any]:
    """One file's description."""
    return shown(find(session, file_id))


@router.get("/{file_id}/content")
def content(file_id: str, session: SessionOf, store: StoreOf) -> StreamingResponse:
    """One file's bytes."""
    file = find(session, file_id)
    return StreamingResponse(store.stream(file.key), media_type="application/octet-stream")


@router.delete("/{file_id}")
def delete(file_id: str, session: SessionOf, store: StoreOf) -> dict[str, Any]:
    """Remove a file; what was compiled from it stays."""
    file = find(session, file_id)
    session.delete(file)
    session.commit()
    store.delete(file.key)
    return {"id": file_id, "object": "file", "deleted": True}


def find(session: SessionOf, file_id: str, param: str | None = None) -> File:
    """A file by its id, or ``NotFoundError``."""
    file = session.get(File, file_id)
    if file is None:
        raise NotFoundError(f"there is no file {file_id!r}: upload it with POST /v1/files", param=param)
    return file


def shown(file: File) -> dict[str, Any]:
    """OpenAI's file object, with the number of rows, the hash and what the check found beside it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": file.status,
        "status_details": file.status_details,
        "rows": file.rows,
        "sha256": file.sha256,
        "check": file.check,
    }
