"""MLflow's copy of what the database and the object store know: runs, their histories, models.

It is made here alone, off the scheduler's and the workers' ways: MLflow may be away for as long as it likes. Each step
may be repeated, and what is done is noted after it is, so that a copy that was interrupted anywhere is completed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import or_, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, joinedload, sessionmaker

from ibllm_core.contract import layout
from ibllm_core.contract.history import Entry, entries_of
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.states import RunKind, RunState, TerminationReason
from ibllm_core.errors import ObjectMissingError, StorageError
from ibllm_core.storage import ObjectStore
from orchestrator.db.events import add_event
from orchestrator.db.models import Job, Run
from orchestrator.errors import RegistryRefusedError, RegistryUnreachableError
from orchestrator.registry.mlflow_registry import EXPERIMENT, Registry
from orchestrator.tenants.bootstrap import DEFAULT_PROJECT

PASS_SECONDS = 2.0
RETRY_MAX_SECONDS = 30.0
POINTS_PER_REQUEST = 1000
REQUESTS_PER_PASS = 20  # of one run, so that a long history does not keep the others waiting
log = logging.getLogger(__name__)


class Tracker:
    """Copies what is new, in passes."""

    def __init__(self, sessions: sessionmaker[Session], registry: Registry, store: ObjectStore) -> None:
        self._sessions = sessions
        self._registry = registry
        self._store = store

    def run(self, stop: threading.Event) -> None:
        """Pass after pass until ``stop``, the rarer the longer something is away."""
        failures = 0
        while not stop.wait(min(PASS_SECONDS * 2**failures, RETRY_MAX_SECONDS)):
            try:
                self.run_once()
                failures = 0
            except (RegistryUnreachableError, StorageError, OperationalError) as error:
                failures = min(failures + 1, 10)
                log.warning("tracking waits: %s", error)
            except Exception:
                log.exception("tracking meets a defect; the next pass tries again")

    def run_once(self) -> None:
        """One pass over all runs and jobs of which MLflow does not have everything.

        Raises ``RegistryUnreachableError``, ``StorageError`` or ``OperationalError``, since what is away is away for
        all of them. A run whose copy fails otherwise is logged, and the others go on.
        """
        with self._sessions() as session:
            has_more = (Run.tracking_closed_at.is_(None), Run.started_at.is_not(None), Run.kind != RunKind.COMPILE)
            runs = session.scalars(select(Run.id).where(*has_more)).all()
            not_succeeded = or_(Run.state != RunState.DONE, Run.reason != TerminationReason.SUCCEEDED)
            jobs = session.scalars(
                select(Job.id)
                .where(Job.tracking_closed_at.is_(None), Job.id.not_in(select(Run.job_id).where(not_succeeded)))
                .order_by(Job.created_at)  # the newest model keeps the alias
            ).all()
        for run_id in runs:
            with self._sessions() as session, _the_others_go_on(run_id):
                run = session.get_one(Run, run_id, options=[joinedload(Run.job)])
                session.commit()  # no transaction stays open while MLflow is asked
                self._copy(session, run)
        for job_id in jobs:
            with self._sessions() as session, _the_others_go_on(job_id):
                job = session.get_one(Job, job_id)
                session.commit()
                self._register(session, job)

    def _copy(self, session: Session, run: Run) -> None:
        try:
            if run.mlflow_run_id is None:
                _save(session, run, mlflow_run_id=self._start(run))
            is_complete = self._send_history(session, run)
            # The state was loaded before the history was read: who is done adds nothing to it.
            if run.state == RunState.DONE and is_complete:
                self._finish(run)
                _save(session, run, tracking_closed_at=datetime.now(UTC))
        except RegistryRefusedError as error:
            log.warning("run %s: %s", run.id, error)
            if run.state == RunState.DONE:
                _tell(session, run.job_id, run.id, f"{run.kind} is not complete in MLflow: {error}")
                _save(session, run, tracking_closed_at=datetime.now(UTC))

    def _start(self, run: Run) -> str:
        return self._registry.start_run(
            experiment=_own_name(run.job.project_id) or EXPERIMENT,
            job_id=run.job_id,
            run_id=run.id,
            kind=run.kind,
            parameters=parameters_of(JobRequest.model_validate(run.job.request), run.kind),
            started_at=run.started_at or run.since,
        )

    def _send_history(self, session: Session, run: Run) -> bool:
        """Send what there is of the history; whether that was all."""
        for _ in range(REQUESTS_PER_PASS):
            entries, part = self._next_entries(run)
            if part == run.tracked_parts:
                return True
            try:
                self._registry.log(str(run.mlflow_run_id), entries)
            except RegistryRefusedError as error:
                first, last = (layout.history(run.job_id, run.kind, number) for number in (run.tracked_parts, part - 1))
                _tell(session, run.job_id, run.id, f"metrics stay out of MLflow, and in {first} to {last}: {error}")
            _save(session, run, tracked_parts=part)
        return False

    def _next_entries(self, run: Run) -> tuple[list[Entry], int]:
        """What one request takes of the history, and the number of the part after it."""
        entries: list[Entry] = []
        part = run.tracked_parts
        while sum(len(entry.metrics) for entry in entries) < POINTS_PER_REQUEST:
            try:
                entries += entries_of(self._store.get(layout.history(run.job_id, run.kind, part)))
            except ObjectMissingError:
                break
            part += 1
        return entries, part

    def _finish(self, run: Run) -> None:
        tags = {f"ibllm.attempt.{attempt.number}.reason": attempt.reason for attempt in run.attempts if attempt.reason}
        self._registry.finish_run(
            str(run.mlflow_run_id),
            run_id=run.id,
            reason=TerminationReason(run.reason or TerminationReason.INFRASTRUCTURE),
            tags={"ibllm.attempts": str(len(run.attempts)), **tags},
            ended_at=run.finished_at or run.since,
        )

    def _register(self, session: Session, job: Job) -> None:
        request = JobRequest.model_validate(job.request)
        last = job.stages[-1]
        # MLflow allows no "/" and no ":" in a registered model's name.
        parts = (_own_name(job.project_id), request.model, request.suffix)
        name = ".".join(part for part in parts if part)
        try:
            self._registry.register(
                name=name,
                source=self._store.uri(last.outputs["adapter"]),
                mlflow_run_id=str(last.mlflow_run_id),
                tags={
                    "ibllm.job_id": job.id,
                    "ibllm.sha256": last.outputs["adapter_sha256"],
                    "ibllm.base": request.model,
                    "ibllm.encoder": request.encoder,
                },
            )
        except RegistryRefusedError as error:
            _tell(session, job.id, job.id, f"the model is not registered in MLflow: {error}")
        session.execute(update(Job).where(Job.id == job.id).values(tracking_closed_at=datetime.now(UTC)))
        session.commit()


def _own_name(project_id: str) -> str:
    """A project's name in MLflow; the default project's things have the plain names that they had before projects."""
    return "" if project_id == DEFAULT_PROJECT else project_id


def is_complete(job: Job) -> bool:
    """Whether MLflow has all that it will get of a job whose runs are done."""
    tracked = [run for run in job.runs if run.kind != RunKind.COMPILE and run.started_at]
    is_model = all(run.reason == TerminationReason.SUCCEEDED for run in job.runs)
    return all(run.tracking_closed_at for run in tracked) and (job.tracking_closed_at is not None or not is_model)


def parameters_of(request: JobRequest, kind: str) -> dict[str, str]:
    """What a run's parameters in MLflow are: the same for all of its attempts."""
    common = {"base": request.model, "encoder": request.encoder, "seed": str(request.seed)}
    stages = [stage for stage in request.stages if stage.stage == kind]
    chosen = stages[0].hyperparameters.model_dump() if stages else {}
    return {**common, **{name: str(value) for name, value in chosen.items()}}


def _save(session: Session, run: Run, **values: str | int | datetime) -> None:
    """Write the tracker's own columns, past the guard of the run's version: they decide nothing."""
    session.execute(update(Run).where(Run.id == run.id).values(values).execution_options(synchronize_session=False))
    session.commit()
    session.refresh(run, list(values))


def _tell(session: Session, job_id: str, about: str, message: str) -> None:
    """Tell the user of a refusal; of many about one run or job only the first, and the log has all."""
    log.error("job %s: %s", job_id, message)
    add_event(session, job_id, message, level="warn", event_id=f"ftevent-{about}-refused")


@contextmanager
def _the_others_go_on(about: str) -> Iterator[None]:
    try:
        yield
    except (RegistryUnreachableError, StorageError, OperationalError):
        raise
    except Exception:
        log.exception("the tracking of %s meets a defect; the others go on", about)
