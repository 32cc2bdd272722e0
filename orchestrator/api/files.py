"""``/v1/files``: upload, list, read, delete. A checker reads each file row by row before it counts as processed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from sqlalchemy import delete as delete_from
from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from ibllm_core.contract.api.common import Page
from ibllm_core.contract.api.files import BaseName, DeletedFile, FileObject, LifeSeconds, UploadPurpose
from ibllm_core.errors import ObjectMissingError, StorageError
from ibllm_core.formats.check import Report
from ibllm_core.storage import ObjectStore
from orchestrator.api.dependencies import FilesReader, FilesWriter, SessionOf, SettingsOf, StoreOf
from orchestrator.api.downloads import begun
from orchestrator.api.pages import page
from orchestrator.db.models import File, Upload
from orchestrator.errors import ConflictError, InvalidRequestError, NotFoundError
from orchestrator.files import rows, uploading
from orchestrator.files.check import counting
from orchestrator.files.names import clean_name, disposition
from orchestrator.tenants import audit

router = APIRouter(prefix="/files", tags=["files"])
FORM_LIMITS: Any = {"max_files": 1, "max_fields": 16, "max_part_size": 4096}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.post("", form_limits=FORM_LIMITS)
def create(
    caller: FilesWriter,
    file: UploadFile,
    purpose: Annotated[UploadPurpose, Form()],
    session: SessionOf,
    store: StoreOf,
    settings: SettingsOf,
    anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[LifeSeconds | None, Form(alias="expires_after[seconds]")] = None,
    base: Annotated[BaseName | None, Form()] = None,
    template: Annotated[str, Form(max_length=64)] = "alpaca",
) -> FileObject:
    """Store a file, to be checked; one that a job would refuse is kept with ``status`` "error" and the reasons.

    ``base`` names a base model, with whose tokenizer the samples' lengths are counted, as they are under ``template``.
    """
    size = file.size or 0
    if not size:
        raise InvalidRequestError("the file is empty: send one with rows", param="file")
    if size > settings.max_file_mb << 20:
        raise InvalidRequestError(
            f"the file is larger than {settings.max_file_mb} MB: send it in parts, POST /v1/uploads", param="file"
        )
    if (anchor is None) != (seconds is None):
        raise InvalidRequestError(
            "expires_after needs both anchor, which is created_at, and seconds: send both or none",
            param="expires_after",
        )
    upload = uploading.begin(
        session,
        caller.project,
        num_bytes=size,
        filename=clean_name(file.filename or "", param="file"),
        mime_type="application/octet-stream",
        purpose=purpose,
        file_expires_after=seconds,
        count_with=counting(store, base, template),
    )
    session.commit()  # nobody's connection waits for the store
    try:
        digest = uploading.store_whole(store, upload, file.file)
    except StorageError:
        session.execute(update(Upload).where(Upload.id == upload.id).values(status=uploading.CANCELLED))
        session.commit()
        raise
    stored = _finish(session, upload, digest)
    audit.record(session, caller, "file.created", stored.id, filename=stored.filename, bytes=stored.bytes)
    session.commit()
    return shown(stored)


def _finish(session: Session, upload: Upload, digest: str) -> File:
    """The upload's row becomes the file's, unless its time was over before the store had it all."""
    pending = (Upload.id == upload.id) & (Upload.status == uploading.PENDING)
    if not session.execute(delete_from(Upload).where(pending).returning(Upload.id)).all():
        raise ConflictError("storing the file took more than an hour: send it in parts, POST /v1/uploads")
    stored = rows.of_upload(upload, digest)
    session.add(stored)
    return stored


@router.get("")
def list_files(
    caller: FilesReader,
    session: SessionOf,
    after: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=10000)] = 10000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> Page[FileObject]:
    """The project's files, newest first or, with ``order`` "asc", oldest first."""
    place = tuple_(File.created_at, File.id)
    is_descending = order == "desc"
    query = select(File).where(File.project_id == caller.project).limit(limit + 1)
    query = query.order_by(*(column.desc() if is_descending else column for column in (File.created_at, File.id)))
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    if after is not None:
        cursor = rows.find(session, caller.project, after, param="after")
        mark = (cursor.created_at, cursor.id)
        query = query.where(place < mark if is_descending else place > mark)
    return page(session.scalars(query).all(), limit, shown)


@router.get("/{file_id}")
def retrieve(caller: FilesReader, file_id: str, session: SessionOf) -> FileObject:
    """One file's description."""
    return shown(rows.find(session, caller.project, file_id))


@router.get("/{file_id}/content", response_class=StreamingResponse, responses=BYTES)
def content(caller: FilesReader, file_id: str, session: SessionOf, store: StoreOf) -> StreamingResponse:
    """One file's bytes."""
    file = rows.find(session, caller.project, file_id)
    session.commit()  # a download may take as long as it likes, without a connection
    return StreamingResponse(
        _opened(store, file),
        media_type="application/octet-stream",
        headers={"content-disposition": disposition(file.filename)},
    )


def _opened(store: ObjectStore, file: File) -> Iterator[bytes]:
    try:
        return begun(store.stream(file.key))
    except ObjectMissingError as error:
        raise NotFoundError(
            f"the bytes of {file.id} are gone: upload the file again", code="content_missing"
        ) from error


@router.delete("/{file_id}")
def delete(caller: FilesWriter, file_id: str, session: SessionOf, store: StoreOf) -> DeletedFile:
    """Remove a file that no open job uses; what was compiled from it stays."""
    file = rows.find(session, caller.project, file_id, lock=True)
    job_id = rows.job_using(session, file)
    if job_id:
        raise ConflictError(f"job {job_id} uses {file_id}: cancel it, or delete the file when it has ended")
    # Bytes go before their row: whoever dies in between leaves what can be deleted again.
    store.delete(file.key)
    session.delete(file)
    audit.record(session, caller, "file.deleted", file_id, filename=file.filename)
    session.commit()
    return DeletedFile(id=file_id)


def shown(file: File) -> FileObject:
    """OpenAI's file object, with the number of rows, the hash and what the check found beside it."""
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=int(file.created_at.timestamp()),
        expires_at=None if file.expires_at is None else int(file.expires_at.timestamp()),
        filename=file.filename,
        purpose=cast("Any", file.purpose),
        status=cast("Any", file.status),
        status_details=file.status_details,
        rows=file.rows,
        sha256=file.sha256 or None,
        check=None if file.check is None else Report.model_validate(file.check),
    )
