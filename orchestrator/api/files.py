"""``/v1/files``: upload, list, read, delete. A training file is checked line by line before it counts as processed."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from sqlalchemy import select, tuple_

from ibllm_core.contract import layout
from ibllm_core.contract.chat_row import parse_row
from ibllm_core.errors import InvalidDataError
from orchestrator.api.dependencies import SessionOf, SettingsOf, StoreOf, require_key
from orchestrator.api.pages import page
from orchestrator.db.models import File
from orchestrator.errors import InvalidRequestError, NotFoundError
from orchestrator.ids import new_id

router = APIRouter(prefix="/files", tags=["files"], dependencies=[Depends(require_key)])
SHOWN_PROBLEMS = 3


@router.post("")
def upload(
    file: UploadFile, purpose: Annotated[str, Form()], session: SessionOf, store: StoreOf, settings: SettingsOf
) -> dict[str, Any]:
    """Store a file and check it; a file with bad rows is kept with ``status`` "error" and the reasons."""
    if purpose != "fine-tune":
        raise InvalidRequestError(f"purpose must be fine-tune, but is {purpose!r}", param="purpose")
    if (file.size or 0) > settings.max_file_mb << 20:
        raise InvalidRequestError(f"the file is larger than {settings.max_file_mb} MB: split it", param="file")
    identity = new_id("file")
    digest, rows, problems = _check(file.file)
    file.file.seek(0)
    store.upload(layout.file(identity), file.file)
    stored = File(
        id=identity,
        key=layout.file(identity),
        filename=file.filename or "upload.jsonl",
        purpose=purpose,
        bytes=file.size or 0,
        sha256=digest,
        status="error" if problems else "processed",
        status_details="; ".join(problems) or None,
        rows=rows,
    )
    session.add(stored)
    session.commit()
    session.refresh(stored)
    return shown(stored)


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
    """OpenAI's file object, with the number of rows and the hash beside it."""
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
    }


def _check(source: BinaryIO) -> tuple[str, int, list[str]]:
    """Hash, number of rows and the first problems of a JSONL file, read as a stream."""
    digest, rows = hashlib.sha256(), 0
    problems: list[str] = []
    for line in source:
        digest.update(line)
        rows += 1
        if len(problems) < SHOWN_PROBLEMS:
            try:
                parse_row(line, rows)
            except InvalidDataError as error:
                problems.append(error.message)
    if rows == 0:
        problems.append("the file is empty: write one JSON object a line")
    return digest.hexdigest(), rows, problems
