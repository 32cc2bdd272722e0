"""``/v1/uploads``: large files in parts, which the object store puts together itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

from fastapi import APIRouter, UploadFile
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.contract.api.files import (
    MAX_PARTS,
    UploadCompletion,
    UploadObject,
    UploadPartObject,
    UploadRequest,
)
from orchestrator.api import files
from orchestrator.api.dependencies import FilesWriter, SessionOf, SettingsOf, StoreOf
from orchestrator.db.models import File, Upload, UploadPart
from orchestrator.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from orchestrator.files import rows, uploading
from orchestrator.files.check import counting
from orchestrator.files.names import clean_name
from orchestrator.ids import new_id
from orchestrator.tenants import audit

router = APIRouter(prefix="/uploads", tags=["uploads"])
MAX_PART_BYTES = 64 << 20
# Parts that were sent again, since their answer was lost, are stored twice until the upload is over.
SPARE = 2
COMPLETIONS_AT_ONCE = 4  # in one process: each holds a connection for as long as the store copies
_completing = threading.BoundedSemaphore(COMPLETIONS_AT_ONCE)


@router.post("")
def create(
    body: UploadRequest, caller: FilesWriter, session: SessionOf, store: StoreOf, settings: SettingsOf
) -> UploadObject:
    """Begin an upload, which takes parts for an hour."""
    if body.bytes > settings.max_upload_gb << 30:
        raise InvalidRequestError(
            f"an upload may have {settings.max_upload_gb} GB: split the file, or copy it to s3://", param="bytes"
        )
    upload = uploading.begin(
        session,
        caller.project,
        num_bytes=body.bytes,
        filename=clean_name(body.filename, param="filename"),
        mime_type=body.mime_type,
        purpose=body.purpose,
        file_expires_after=body.expires_after.seconds if body.expires_after else None,
        count_with=counting(store, body.base, body.template),
    )
    audit.record(session, caller, "upload.created", upload.id, filename=upload.filename, bytes=upload.bytes)
    session.commit()
    return _shown(session, upload)


@router.post("/{upload_id}/parts", form_limits=files.FORM_LIMITS)
def add_part(
    upload_id: str, data: UploadFile, caller: FilesWriter, session: SessionOf, store: StoreOf
) -> UploadPartObject:
    """Store a part, of at most 64 MiB. Parts may come side by side and in any order."""
    upload = _find(session, caller.project, upload_id)
    uploading.require_pending(upload)
    size = data.size or 0
    if not 0 < size <= MAX_PART_BYTES:
        raise InvalidRequestError(
            f"a part has from 1 to {MAX_PART_BYTES:,} bytes, and this one {size:,}: cut the file anew", param="data"
        )
    _require_room(session, upload, size)
    session.commit()  # nobody's connection waits for the store
    part = UploadPart(id=new_id("part"), upload_id=upload_id, created_at=datetime.now(UTC), bytes=size)
    key = layout.upload_part(upload_id, part.id)
    store.upload(key, data.file)
    still = select(Upload).where(Upload.id == upload_id).execution_options(populate_existing=True)
    locked = session.scalar(still.with_for_update(read=True, skip_locked=True))
    if locked is None or uploading.status_of(locked) != uploading.PENDING:
        store.delete(key)
        raise ConflictError(f"upload {upload_id} ended while the part came: begin another one")
    session.add(part)
    session.commit()
    return UploadPartObject(id=part.id, created_at=int(part.created_at.timestamp()), upload_id=upload_id)


def _require_room(session: Session, upload: Upload, size: int) -> None:
    stored = select(func.count(), func.coalesce(func.sum(UploadPart.bytes), 0)).where(UploadPart.upload_id == upload.id)
    num_parts, num_bytes = session.execute(stored).one()
    if num_parts >= MAX_PARTS:
        raise InvalidRequestError(f"the upload has {MAX_PARTS:,} parts already: send fewer, larger ones", param="data")
    if num_bytes + size > SPARE * upload.bytes + MAX_PART_BYTES:
        raise InvalidRequestError(
            f"{upload.bytes:,} bytes were announced, and the parts have {num_bytes + size:,}: complete the upload, or "
            "begin one of the right size",
            param="data",
        )


@router.post("/{upload_id}/complete")
def complete(
    upload_id: str, body: UploadCompletion, caller: FilesWriter, session: SessionOf, store: StoreOf
) -> UploadObject:
    """Put the parts together in the order of ``part_ids``, as a file to be checked.

    Asked again, it answers the same file: of two requests at once the second one waits for the first.
    """
    with _one_of_few():
        upload = _find(session, caller.project, upload_id, lock=True)
        if upload.status != uploading.COMPLETED:
            uploading.require_pending(upload)
            named = select(UploadPart.id, UploadPart.bytes).where(
                UploadPart.upload_id == upload_id, UploadPart.id.in_(body.part_ids)
            )
            uploading.check_parts(upload, dict(session.execute(named).tuples().all()), body.part_ids)
            file = rows.of_upload(upload, uploading.put_together(store, upload, body.part_ids, body.md5))
            session.add(file)
            session.flush()
            upload.status, upload.file_id = uploading.COMPLETED, file.id
            audit.record(session, caller, "upload.completed", upload_id, file=file.id)
        session.commit()
    return _shown(session, upload)


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _completing.acquire(blocking=False):
        raise UnavailableError(
            f"{COMPLETIONS_AT_ONCE} uploads are being completed: ask again in a moment", retry_after=5.0
        )
    try:
        yield
    finally:
        _completing.release()


@router.post("/{upload_id}/cancel")
def cancel(upload_id: str, caller: FilesWriter, session: SessionOf) -> UploadObject:
    """End an upload, whose parts are removed."""
    upload = _find(session, caller.project, upload_id, lock=True)
    if upload.status != uploading.CANCELLED:
        uploading.require_pending(upload)
        upload.status = uploading.CANCELLED
        audit.record(session, caller, "upload.cancelled", upload_id)
    session.commit()
    return _shown(session, upload)


def _find(session: Session, project_id: str, upload_id: str, *, lock: bool = False) -> Upload:
    query = select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id)
    upload = session.scalar(query.with_for_update(key_share=True) if lock else query)
    if upload is None:
        raise NotFoundError(f"there is no upload {upload_id!r}: begin one with POST /v1/uploads")
    return upload


def _shown(session: Session, upload: Upload) -> UploadObject:
    file = session.get(File, upload.file_id) if upload.file_id else None
    return UploadObject(
        id=upload.id,
        bytes=upload.bytes,
        created_at=int(upload.created_at.timestamp()),
        expires_at=int(upload.expires_at.timestamp()),
        filename=upload.filename,
        purpose=cast("Any", upload.purpose),
        status=cast("Any", uploading.status_of(upload)),
        file=files.shown(file) if file else None,
    )
