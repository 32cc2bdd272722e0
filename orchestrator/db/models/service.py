"""What the service keeps for itself: words on their way out, who did what, the cluster as it was last seen."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.models.base import Base, CreatedAt, Identifier, Json, OfProject


class WebhookEndpoint(Base):
    """An address that is told of a project's jobs.

    ``secret`` signs what is sent, and ``old_secret`` too until ``old_secret_until``. A success clears ``last_error``.
    """

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("webhook_endpoints_of_project", "project_id", "created_at"),)

    id: Mapped[Identifier]
    project_id: Mapped[OfProject]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    name: Mapped[str]
    url: Mapped[str]
    secret: Mapped[str]
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[datetime | None]
    events: Mapped[list[str]]
    disabled_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    last_error: Mapped[str | None]


class OutboxMessage(Base):
    """An effect outside the database, written with the change that asks for it and done afterwards, at least once.

    ``kind`` says who does it: ``submit`` hands an attempt to Ray, ``webhook`` tells an endpoint. Messages of one
    ``lane`` are done one at a time, so that a slow receiver takes one place only. What is done and has a ``last_error``
    was given up.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        Index("outbox_due", "kind", "next_at", postgresql_where=text("done_at IS NULL")),
        Index("outbox_done", "done_at", postgresql_where=text("done_at IS NOT NULL")),
        Index("outbox_of_lane", "lane", "id", postgresql_where=text("lane IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    created_at: Mapped[CreatedAt]
    kind: Mapped[str]
    lane: Mapped[str | None]
    payload: Mapped[Json]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_at: Mapped[CreatedAt]
    done_at: Mapped[datetime | None]
    last_error: Mapped[str | None]


class AuditEntry(Base):
    """Who did what to which thing; written in the transaction of the deed."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("audit_log_of_organization", "organization_id", "sequence"),)

    id: Mapped[Identifier]
    sequence: Mapped[int] = mapped_column(Identity())
    created_at: Mapped[CreatedAt]
    organization_id: Mapped[str]
    project_id: Mapped[str | None]
    user_id: Mapped[str]
    key_id: Mapped[str]
    action: Mapped[str]
    target: Mapped[str]
    request_id: Mapped[str]
    address: Mapped[str]
    details: Mapped[Json] = mapped_column(default=dict)


class ClusterSnapshot(Base):
    """What the scheduler last saw of the cluster: one row, so that the API needs no Ray."""

    __tablename__ = "cluster_snapshot"

    id: Mapped[int] = mapped_column(primary_key=True, default=1)
    updated_at: Mapped[datetime]
    view: Mapped[Json]
