"""Jobs with their runs and attempts, and what comes out of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Identity, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ibllm_core.contract.states import JobStatus, RunKind, RunState
from orchestrator.db.models.base import Base, CreatedAt, Identifier, Json, OfProject

OPEN = "status IN ('validating_files', 'queued', 'running')"


class Job(Base):
    """What a user submitted, and what became of it.

    ``request`` is the contract's ``JobRequest``; while files are validated, the submission as it came. ``parent`` is
    what the first stage starts from: an adapter's or a checkpoint's prefix, with its name, stage and job.
    ``request_hash`` finds a request that a client's retry sent again.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_of_project", "project_id", "created_at", "id"),
        Index("jobs_open", "created_at", postgresql_where=text(OPEN)),
        Index("jobs_by_idempotency_key", "project_id", "idempotency_key", unique=True),
        Index("jobs_by_request", "project_id", "request_hash", "created_at"),
        Index("jobs_by_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
    )

    id: Mapped[Identifier]
    project_id: Mapped[OfProject]
    created_by: Mapped[str | None]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(default=JobStatus.QUEUED, index=True)
    request: Mapped[Json]
    openai_hyperparameters: Mapped[Json | None]  # as they were sent
    request_hash: Mapped[str | None]
    retry_count: Mapped[int] = mapped_column(default=0, server_default="0")
    idempotency_key: Mapped[str | None]
    # Named apart, since SQLAlchemy keeps "metadata" for itself.
    labels: Mapped[Json] = mapped_column("metadata", default=dict, server_default=text("'{}'"))
    parent: Mapped[Json | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    fine_tuned_model: Mapped[str | None]
    result_files: Mapped[list[str]] = mapped_column(default=list)
    error: Mapped[Json | None]
    tracking_closed_at: Mapped[datetime | None]

    runs: Mapped[list[Run]] = relationship(back_populates="job", order_by="Run.position", lazy="selectin")

    @property
    def stages(self) -> list[Run]:
        """The runs that train; the last one's adapter is the job's model."""
        return [run for run in self.runs if run.kind in (RunKind.STAGE1, RunKind.STAGE2)]


class Run(Base):
    """One schedulable step of a job. ``version`` guards every change: who loaded an older one changes nothing.

    ``tracked_parts`` counts the parts of its history that MLflow has; ``tracking_closed_at``, here as in a job, is when
    MLflow had all that it will get. They and ``mlflow_run_id`` belong to the tracker and are written past the guard.
    """

    __tablename__ = "runs"

    id: Mapped[Identifier]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    position: Mapped[int]
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(default=RunState.PENDING, index=True)
    version: Mapped[int] = mapped_column()
    since: Mapped[CreatedAt]
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
    """One try of a run: a Ray job whose submission id is this id. ``ranks`` has each rank's last step and its time.

    ``gpus`` is what it holds from its creation to its end, ``submitted_at`` is when Ray had taken it, ``project_id`` is
    its job's, for sums over a project's month.
    """

    __tablename__ = "attempts"
    __table_args__ = (Index("attempts_of_project", "project_id", "created_at"),)

    id: Mapped[Identifier]
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[OfProject]
    number: Mapped[int]
    created_at: Mapped[CreatedAt]
    gpus: Mapped[float] = mapped_column(default=0.0, server_default="0")
    token: Mapped[str]
    submitted_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    ranks: Mapped[Json] = mapped_column(default=dict, server_default=text("'{}'"))
    outcome: Mapped[Json | None]
    reason: Mapped[str | None]
    message: Mapped[str | None]
    finished_at: Mapped[datetime | None]

    run: Mapped[Run] = relationship(back_populates="attempts")


class Event(Base):
    """A line of a job's story; ``sequence`` rises within a job in the order in which events became visible."""

    __tablename__ = "events"
    __table_args__ = (Index("events_of_job", "job_id", "sequence"),)

    id: Mapped[Identifier]
    sequence: Mapped[int] = mapped_column(Identity())
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[CreatedAt]
    level: Mapped[str] = mapped_column(default="info")
    type: Mapped[str] = mapped_column(default="message")
    message: Mapped[str]
    data: Mapped[Json] = mapped_column(default=dict)


class Checkpoint(Base):
    """A checkpoint that a training run has now; ``model`` is the name under which it can be used."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        UniqueConstraint("run_id", "step"),
        Index("checkpoints_of_job", "job_id", "created_at", "id"),
    )

    id: Mapped[Identifier]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    created_at: Mapped[CreatedAt]
    step: Mapped[int]
    prefix: Mapped[str]
    metrics: Mapped[Json]
    model: Mapped[str] = mapped_column(unique=True)


class Model(Base):
    """A finished adapter. A deleted one keeps its row, since jobs and audit entries name it."""

    __tablename__ = "models"
    __table_args__ = (Index("models_of_project", "project_id", "created_at"),)

    id: Mapped[Identifier]
    project_id: Mapped[OfProject]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[CreatedAt]
    deleted_at: Mapped[datetime | None]
    base: Mapped[str]
    encoder: Mapped[str]
    stage: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str]


class ModelPermission(Base):
    """That another project of the same organisation may use a model or a checkpoint."""

    __tablename__ = "model_permissions"
    __table_args__ = (UniqueConstraint("model", "project_id"),)

    id: Mapped[Identifier]
    model: Mapped[str]
    owner_project_id: Mapped[OfProject]
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    created_at: Mapped[CreatedAt]
