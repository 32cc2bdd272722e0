"""The tables: the one owner of truth."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from ibllm_core.contract.states import JobStatus, RunState

Json = dict[str, Any]


class Base(DeclarativeBase):
    """Base of all tables; times are with time zone, free-form values JSONB."""

    type_annotation_map: ClassVar = {
        str: Text,
        datetime: DateTime(timezone=True),
        Json: JSONB,
        list[str]: JSONB,
        int: BigInteger,
    }


class File(Base):
    """An uploaded file, or a result file of a job; its bytes lie in the object store."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    key: Mapped[str]
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    status: Mapped[str]
    status_details: Mapped[str | None]
    rows: Mapped[int | None]
    check: Mapped[Json | None]


class Job(Base):
    """What a user submitted, as it was submitted, and what became of it."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(default=JobStatus.QUEUED, index=True)
    request: Mapped[Json]
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    fine_tuned_model: Mapped[str | None]
    result_files: Mapped[list[str]] = mapped_column(default=list)
    error: Mapped[Json | None]
    tracking_closed_at: Mapped[datetime | None]

    runs: Mapped[list[Run]] = relationship(back_populates="job", order_by="Run.position", lazy="selectin")


class Run(Base):
    """One schedulable step of a job. ``version`` guards every change: who loaded an older one changes nothing.

    ``tracked_parts`` counts the parts of its history that MLflow has; ``tracking_closed_at``, here as in a job, is when
    MLflow had all that it will get. They and ``mlflow_run_id`` belong to the tracker and are written past the guard.
    """

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    position: Mapped[int]
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(default=RunState.PENDING, index=True)
    version: Mapped[int] = mapped_column()
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    wait_code: Mapped[str | None]
    wait_message: Mapped[str | None]
    reason: Mapped[str | None]
    message: Mapped[str | None]
    progress: Mapped[Json | None]
    outputs: Mapped[Json] = mapped_column(default=dict)
    mlflow_run_id: Mapped[str | None]
    tracked_parts: Mapped[int] = mapped_column(default=0, server_default="0")
    tracking_closed_at: Mapped[datetime | None]

    job: Mapped[Job] = relationship(back_populates="runs")
    attempts: Mapped[list[Attempt]] = relationship(back_populates="run", order_by="Attempt.number", lazy="selectin")

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 (SQLAlchemy's own form)


class Attempt(Base):
    """One try of a run: a Ray job whose submission id is this id. ``ranks`` has each rank's last step and its time."""

    __tablename__ = "attempts"

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    number: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    token: Mapped[str]
    heartbeat_at: Mapped[datetime | None]
    ranks: Mapped[Json] = mapped_column(default=dict, server_default=text("'{}'"))
    outcome: Mapped[Json | None]
    reason: Mapped[str | None]
    message: Mapped[str | None]
    finished_at: Mapped[datetime | None]

    run: Mapped[Run] = relationship(back_populates="attempts")


class Event(Base):
    """A line of a job's story; ``sequence`` orders events of one instant."""

    __tablename__ = "events"
    __table_args__ = (Index("events_of_job", "job_id", "sequence"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(Identity())
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    level: Mapped[str] = mapped_column(default="info")
    type: Mapped[str] = mapped_column(default="message")
    message: Mapped[str]
    data: Mapped[Json] = mapped_column(default=dict)


class ClusterSnapshot(Base):
    """What the scheduler last saw of the cluster: one row, so that the API needs no Ray."""

    __tablename__ = "cluster_snapshot"

    id: Mapped[int] = mapped_column(primary_key=True, default=1)
    updated_at: Mapped[datetime]
    view: Mapped[Json]
