"""Files, and uploads that come in parts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.models.base import Base, CreatedAt, Identifier, Json, OfProject


class File(Base):
    """An uploaded file, or a result file of a job; its bytes lie in the object store.

    An upload is ``uploaded`` until a checker has read it; ``claimed_at`` is when one last said that it does, and
    ``check_tries`` how often one began to. ``sha256`` is None until somebody has read all of it.
    """

    __tablename__ = "files"
    __table_args__ = (
        Index("files_of_project", "project_id", "created_at", "id"),
        Index("files_unchecked", "created_at", postgresql_where=text("status = 'uploaded'")),
        Index("files_expiring", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    )

    id: Mapped[Identifier]
    project_id: Mapped[OfProject]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime | None]
    key: Mapped[str]
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str | None]
    status: Mapped[str]
    status_details: Mapped[str | None]
    claimed_at: Mapped[datetime | None]
    check_tries: Mapped[int] = mapped_column(default=0, server_default="0")
    count_with: Mapped[Json | None]  # base and template, with which the check counts tokens
    rows: Mapped[int | None]
    check: Mapped[Json | None]


class Upload(Base):
    """A file on its way: what the object store may hold of it is found by this row, whoever died in between.

    A large one comes in parts. ``cleared_at`` is when nothing was left that is not part of the file.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        Index("uploads_of_project", "project_id", "created_at"),
        Index("uploads_pending", "expires_at", postgresql_where=text("status = 'pending'")),
        Index("uploads_uncleared", "created_at", postgresql_where=text("status <> 'pending' AND cleared_at IS NULL")),
    )

    id: Mapped[Identifier]
    project_id: Mapped[OfProject]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    bytes: Mapped[int]
    filename: Mapped[str]
    mime_type: Mapped[str]
    purpose: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    file_expires_after: Mapped[int | None]  # seconds
    count_with: Mapped[Json | None]
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id", ondelete="SET NULL"))
    cleared_at: Mapped[datetime | None]


class UploadPart(Base):
    """A part; which one it is in the file is said when the upload is completed."""

    __tablename__ = "upload_parts"

    id: Mapped[Identifier]
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[CreatedAt]
    bytes: Mapped[int]
