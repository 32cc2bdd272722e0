"""An upload's way to a file. Its row is written before its bytes, so that whatever is left of it can be found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from io import RawIOBase
from typing import Any, BinaryIO, cast

from sqlalchemy.orm import Session

from ibllm_core.contract import layout
from ibllm_core.storage import MIN_PART_BYTES, ObjectStore
from orchestrator.db.models import Upload
from orchestrator.errors import ConflictError, InvalidRequestError
from orchestrator.files import rows
from orchestrator.files.quota import require_room
from orchestrator.ids import new_id

LIFE = timedelta(hours=1)
PENDING, COMPLETED, CANCELLED, EXPIRED = "pending", "completed", "cancelled", "expired"


def begin(
    session: Session,
    project_id: str,
    *,
    num_bytes: int,
    filename: str,
    mime_type: str,
    purpose: str,
    file_expires_after: int | None,
    count_with: dict[str, Any] | None,
) -> Upload:
    """Add an upload for which the project has room, or raise ``QuotaError``."""
    require_room(session, project_id, num_bytes)
    now = datetime.now(UTC)
    upload = Upload(
        id=new_id("upload"),
        project_id=project_id,
        created_at=now,
        expires_at=now + LIFE,
        bytes=num_bytes,
        filename=filename,
        mime_type=mime_type,
        purpose=purpose,
        status=PENDING,
        file_expires_after=file_expires_after,
        count_with=count_with,
    )
    session.add(upload)
    return upload


def store_whole(store: ObjectStore, upload: Upload, source: BinaryIO) -> str:
    """Store an upload that came in one piece; returns its SHA-256."""
    reader = _HashingReader(source)
    store.upload(layout.file(rows.id_of(upload.id)), cast("BinaryIO", reader))
    return reader.digest.hexdigest()


def put_together(store: ObjectStore, upload: Upload, part_ids: Sequence[str], md5: str | None) -> str | None:
    """Make the file of its parts, inside the store; returns its SHA-256 where ``md5`` made it be read."""
    key = layout.file(rows.id_of(upload.id))
    store.join(key, [layout.upload_part(upload.id, part_id) for part_id in part_ids])
    if md5 is None:
        return None
    found, digest = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for chunk in store.stream(key):
        found.update(chunk)
        digest.update(chunk)
    if found.hexdigest() != md5.lower():
        store.delete(key)
        raise InvalidRequestError(
            f"the parts in this order have the MD5 {found.hexdigest()}, not {md5}: check the order of part_ids, or "
            "send the parts again",
            param="md5",
        )
    return digest.hexdigest()


def check_parts(upload: Upload, stored: Mapping[str, int], part_ids: Sequence[str]) -> None:
    """``InvalidRequestError`` unless parts, of which ``stored`` has the bytes, make up the file that was announced."""
    for index, part_id in enumerate(part_ids):
        if part_id not in stored:
            raise _wrong_parts(f"{part_id!r} is no part of upload {upload.id}: name the ids that its parts were given")
        if stored[part_id] < MIN_PART_BYTES and index < len(part_ids) - 1:
            raise _wrong_parts(
                f"part {part_id} has {stored[part_id]:,} bytes, and all but the last must have at least "
                f"{MIN_PART_BYTES:,}: cancel the upload and send larger parts"
            )
    if len(set(part_ids)) < len(part_ids):
        twice = next(part_id for part_id in part_ids if part_ids.count(part_id) > 1)
        raise _wrong_parts(f"part {twice} is named twice: name each part once")
    total = sum(stored[part_id] for part_id in part_ids)
    if total != upload.bytes:
        raise _wrong_parts(
            f"the parts have {total:,} bytes together, and {upload.bytes:,} were announced: name all parts, or begin "
            "another upload with the right number"
        )


def status_of(upload: Upload) -> str:
    """An upload's status now: one whose time is over has expired, whether or not somebody has noted it."""
    return EXPIRED if upload.status == PENDING and upload.expires_at <= datetime.now(UTC) else upload.status


def require_pending(upload: Upload) -> None:
    """``ConflictError`` for an upload that is over."""
    status = status_of(upload)
    if status != PENDING:
        raise ConflictError(f"upload {upload.id} is {status} and does not change any more: begin another one")


def _wrong_parts(problem: str) -> InvalidRequestError:
    return InvalidRequestError(problem, param="part_ids")


class _HashingReader(RawIOBase):
    """A file that is hashed while it is read, once and forward: what can be rewound might be hashed twice."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._source.read(size)
        self.digest.update(chunk)
        return chunk
