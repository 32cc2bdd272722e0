"""What the scheduler and the workers do to a job, done to the database by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from ibllm_core.contract.job_spec import JobRequest, StageRequest
from ibllm_core.contract.states import JobStatus, RunState, TerminationReason
from orchestrator.db.events import add_event
from orchestrator.db.models import Attempt, Checkpoint, Job, Model, Run
from orchestrator.db.session import connect, session_factory
from orchestrator.ids import new_id
from orchestrator.tenants.bootstrap import DEFAULT_PROJECT

PROGRESS = {
    "phase": "training",
    "step": 40,
    "total_steps": 1200,
    "seconds_left": 1500.0,
    "loss": 2.3456,
    "tokens_per_second": 1234.5,
    "gate_abs_mean": 0.0123,
    "nodes": [],
}


@dataclass(frozen=True)
class Work:
    database: str

    def put_job(self, *kinds: str, base: str = "tiny", **values: Any) -> str:
        """A queued job with runs of these kinds; returns its id."""
        job_id = new_id("ftjob")
        stage = StageRequest(stage="stage1", training_file="file-0")
        request = JobRequest(model=base, stages=(stage,)).model_dump(mode="json")
        with self._session() as session:
            session.add(Job(**{"id": job_id, "project_id": DEFAULT_PROJECT, "request": request, **values}))
            session.flush()
            for position, kind in enumerate(kinds or ("stage1",)):
                session.add(Run(id=f"{job_id}-{kind}", job_id=job_id, position=position, kind=kind))
        return job_id

    def wait(self, job_id: str, kind: str, message: str) -> None:
        with self._session() as session:
            run = session.get_one(Run, f"{job_id}-{kind}")
            run.wait_code, run.wait_message = "cluster_busy", message

    def start(self, job_id: str, kind: str, **progress: Any) -> str:
        """A run that trains; returns its attempt's id."""
        with self._session() as session:
            run = session.get_one(Run, f"{job_id}-{kind}")
            session.get_one(Job, job_id).status = JobStatus.RUNNING
            run.state, run.started_at = RunState.RUNNING, datetime.now(UTC) - timedelta(seconds=90)
            run.progress = {**PROGRESS, **progress}
            attempt = {"id": f"{run.id}-1", "project_id": DEFAULT_PROJECT, "number": 1, "token": "t"}
            run.attempts.append(Attempt(**attempt))
            return str(attempt["id"])

    def end_attempt(self, attempt_id: str) -> None:
        with self._session() as session:
            session.get_one(Attempt, attempt_id).finished_at = datetime.now(UTC)

    def succeed(self, job_id: str, *, prefix: str | None = None, result_files: list[str] | None = None) -> str:
        """The job's end, with a model; returns its name."""
        name = f"ft:tiny:default:mine:{job_id.removeprefix('ftjob-')}"
        with self._session() as session:
            job = session.get_one(Job, job_id)
            for run in job.runs:
                run.state, run.reason = RunState.DONE, TerminationReason.SUCCEEDED
                run.started_at = run.started_at or datetime.now(UTC) - timedelta(seconds=300)
                run.finished_at = datetime.now(UTC)
            model = {"id": name, "project_id": job.project_id, "job_id": job_id, "base": "tiny", "encoder": "e"}
            session.add(Model(stage="stage1", prefix=prefix or f"models/{job_id}", sha256="abc", **model))
            job.status, job.fine_tuned_model, job.finished_at = JobStatus.SUCCEEDED, name, datetime.now(UTC)
            job.result_files = result_files or []
            add_event(session, job_id, "the job succeeded")
        return name

    def fail(self, job_id: str, message: str) -> None:
        with self._session() as session:
            job = session.get_one(Job, job_id)
            for run in job.runs:
                run.state, run.reason, run.message = RunState.DONE, TerminationReason.USER_ERROR, message
            job.status, job.finished_at = JobStatus.FAILED, datetime.now(UTC)
            job.error = {"code": "user_error", "message": message, "param": None}

    def be_paused(self, job_id: str) -> None:
        with self._session() as session:
            job = session.get_one(Job, job_id)
            job.status, job.pause_requested = JobStatus.PAUSED, True

    def say(self, job_id: str, message: str) -> None:
        with self._session() as session:
            add_event(session, job_id, message)

    def save(self, job_id: str, kind: str, step: int, **metrics: float) -> None:
        """A checkpoint."""
        name = f"ft:tiny:default:mine:{job_id.removeprefix('ftjob-')}:ckpt-{kind}-step-{step}"
        with self._session() as session:
            values = {"job_id": job_id, "run_id": f"{job_id}-{kind}", "step": step, "prefix": "p", "metrics": metrics}
            session.add(Checkpoint(id=new_id("ftckpt"), model=name, **values))

    def _session(self) -> Any:
        return _Transaction(self.database)


class _Transaction:
    """A session that commits at the end of its block, with a connection of its own."""

    def __init__(self, database: str) -> None:
        self._engine = connect(database)

    def __enter__(self) -> Session:
        self._session = session_factory(self._engine)()
        return self._session

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._session.commit()
        self._session.close()
        self._engine.dispose()
