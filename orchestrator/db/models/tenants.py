"""Who uses the service: organisations, their projects and people, and the keys that they show."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.models.base import Base, CreatedAt, Identifier


class Organization(Base):
    """A customer of the installation; projects of two organisations share nothing."""

    __tablename__ = "organizations"

    id: Mapped[Identifier]
    created_at: Mapped[CreatedAt]
    name: Mapped[str]


class Project(Base):
    """What owns jobs, files and models. A quota that is None is no limit.

    ``data_prefixes`` are the addresses that jobs may read beside uploads: ``s3://bucket/prefix/``, or ``/folder/``
    where the service runs on one machine.
    """

    __tablename__ = "projects"
    __table_args__ = (Index("projects_of_organization", "organization_id", "created_at", "id"),)

    id: Mapped[Identifier]
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    created_at: Mapped[CreatedAt]
    archived_at: Mapped[datetime | None]
    name: Mapped[str]
    max_gpus: Mapped[float | None]
    gpu_hours_per_month: Mapped[float | None]
    max_queued_jobs: Mapped[int | None]
    max_storage_bytes: Mapped[int | None]
    requests_per_minute: Mapped[int | None]
    data_prefixes: Mapped[list[str]] = mapped_column(default=list, server_default=text("'[]'"))


class User(Base):
    """A person, or a program as a service account. Owners of an organisation are admins of all its projects.

    The operator owns the installation: its organisations and its cluster.
    """

    __tablename__ = "users"
    __table_args__ = (Index("users_by_email", "organization_id", "email", unique=True),)

    id: Mapped[Identifier]
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    created_at: Mapped[CreatedAt]
    kind: Mapped[str] = mapped_column(default="user")
    name: Mapped[str]
    email: Mapped[str | None]
    is_owner: Mapped[bool] = mapped_column(default=False)
    is_operator: Mapped[bool] = mapped_column(default=False)


class Membership(Base):
    """A user's role in a project: reader, submitter or admin."""

    __tablename__ = "memberships"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
    added_at: Mapped[CreatedAt]
    role: Mapped[str]


class ApiKey(Base):
    """A key of a user. Only its hash is kept; ``hint`` is what people recognise it by.

    ``project_id`` None is a key for the organisation's administration. ``scopes`` None allows all that the user's role
    allows.
    """

    __tablename__ = "api_keys"

    id: Mapped[Identifier]
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), index=True)
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"), index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[CreatedAt]
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    scopes: Mapped[list[str] | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
