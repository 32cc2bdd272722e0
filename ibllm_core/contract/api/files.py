"""Files, and uploads that come in parts, as the HTTP API takes and shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from ibllm_core.contract.base import Contract
from ibllm_core.formats.check import Report

MIN_LIFE_SECONDS = 3600
MAX_LIFE_SECONDS = 2_592_000
MAX_PARTS = 10_000
MAX_BYTES = 1 << 50


def _is_training_data(purpose: object) -> object:
    if purpose != "fine-tune":
        raise ValueError(
            f"must be fine-tune, since training data is all that this service reads files for, but is {purpose!r:.40}"
        )
    return purpose


UploadPurpose = Annotated[Literal["fine-tune"], BeforeValidator(_is_training_data)]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
LifeSeconds = Annotated[int, Field(ge=MIN_LIFE_SECONDS, le=MAX_LIFE_SECONDS)]
PartId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
BaseName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class ExpiresAfter(Contract):
    """When a file is removed by itself; one that a job uses stays until the job has ended."""

    anchor: Literal["created_at"]
    seconds: LifeSeconds


class FileObject(Contract):
    """A file. ``uploaded`` is one whose check has not ended; ``status_details`` says why a job would refuse it.

    ``rows``, ``sha256`` and ``check`` are ours: what the check found, null before it has ended.
    """

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["fine-tune", "fine-tune-results"]
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None
    rows: int | None
    sha256: str | None
    check: Report | None


class DeletedFile(Contract):
    """That a file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class UploadRequest(Contract):
    """The body of ``POST /v1/uploads``. ``base`` and ``template`` are ours, and say how the check counts tokens."""

    bytes: int = Field(ge=1, le=MAX_BYTES, description="of the whole file")
    filename: FileName
    mime_type: str = Field(max_length=255, description="taken for what it is; the check looks into the file")
    purpose: UploadPurpose
    expires_after: ExpiresAfter | None = None
    base: BaseName | None = None
    template: str = Field("alpaca", max_length=64)


class UploadCompletion(Contract):
    """The body of ``POST /v1/uploads/{upload_id}/complete``: the parts in the order of the file."""

    part_ids: list[PartId] = Field(min_length=1, max_length=MAX_PARTS)
    md5: str | None = Field(None, pattern="^[0-9a-fA-F]{32}$", description="of the whole file, in hex")


class UploadObject(Contract):
    """A file on its way; ``file`` is there once it is complete, unless it was deleted since."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["fine-tune"]
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None


class UploadPartObject(Contract):
    """A part that is stored."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
