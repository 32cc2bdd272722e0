"""Load, decide, apply: one pass over all open jobs. Decisions are pure; the database is the owner of truth."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import ModuleType

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.run_spec import Outcome
from ibllm_core.contract.states import JobStatus, RunKind, RunState, TerminationReason
from ibllm_core.errors import CoreError
from orchestrator.db.events import add_event
from orchestrator.db.models import Attempt, ClusterSnapshot, File, Job, Run
from orchestrator.errors import ServiceError
from orchestrator.ids import new_id
from orchestrator.registry import tracker
from orchestrator.scheduler import effects, policy
from orchestrator.scheduler.states import pending, running, starting, stopping
from orchestrator.scheduler.views import RayStatus, RunView, Transition

DECIDERS: dict[str, ModuleType] = {
    RunState.PENDING: pending,
    RunState.STARTING: starting,
    RunState.RUNNING: running,
    RunState.STOPPING: stopping,
}
ACTIVE = (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)
OPEN_STATUSES = (JobStatus.QUEUED, JobStatus.RUNNING)
# Who sees a job's end finds it in MLflow, too; where MLflow is away for longer, it gets to know later.
TRACKING_PATIENCE = timedelta(seconds=20)
log = logging.getLogger(__name__)


class Reconciler:
    """Moves the runs of all open jobs as far as they go now."""

    def __init__(self, sessions: sessionmaker[Session], world: effects.World) -> None:
        self._sessions = sessions
        self._world = world
        self._deaf_until = datetime.now(UTC)

    def run_once(self) -> None:
        """One pass. A run that fails to move is logged and tried again in the next pass."""
        now = datetime.now(UTC)
        nodes = self._nodes()
        with self._sessions() as session:
            jobs = session.scalars(select(Job).where(Job.status.in_(OPEN_STATUSES)).order_by(Job.created_at)).all()
            decided = _plan(jobs, nodes, now)
            _save_snapshot(session, jobs, nodes, now)
            session.commit()
        if jobs and not effects.service_answers(self._world):
            self._deaf_until = now
        for job_id in [job.id for job in jobs]:
            self._move_job(job_id, decided, now)

    def _move_job(self, job_id: str, decided: policy.Plan, now: datetime) -> None:
        try:
            with self._sessions() as session:
                job = session.get(Job, job_id)
                if job is None:
                    return
                for run in job.runs:
                    if run.state != RunState.DONE:
                        self._move_run(session, job, run, decided, now)
                        session.commit()
                self._settle(session, job, now)
                session.commit()
        except StaleDataError:
            log.info("job %s was changed meanwhile; the next pass sees it anew", job_id)
        except (ServiceError, CoreError) as error:
            log.warning("job %s could not move: %s", job_id, error)
        except OperationalError:
            raise  # the database went away, for all jobs
        except Exception:
            log.exception("job %s meets a defect; the other jobs go on", job_id)

    def _move_run(self, session: Session, job: Job, run: Run, decided: policy.Plan, now: datetime) -> None:
        view = self._view(job, run, decided, now)
        transition: Transition = DECIDERS[run.state].decide(view)
        if transition.stop:
            effects.stop(self._world, run)
        if run.state in ACTIVE and transition.state in (RunState.PENDING, RunState.DONE):
            _finish_attempt(run, transition, now)
            effects.keep_log(self._world, job, run)
        changed = transition.state != run.state
        _apply(session, job, run, transition, now)
        if changed and transition.state == RunState.STARTING:
            session.commit()  # the attempt must be there before Ray hears of it
        if transition.submit or (changed and transition.state == RunState.STARTING):
            effects.submit(self._world, session, job, run)

    def _view(self, job: Job, run: Run, decided: policy.Plan, now: datetime) -> RunView:
        attempt = run.attempts[-1] if run.attempts and run.state in ACTIVE else None
        outcome = Outcome.model_validate(attempt.outcome) if attempt and attempt.outcome else None
        return RunView(
            now=now,
            since=run.since,
            num_attempts=len(run.attempts),
            cancel_requested=job.cancel_requested,
            parent_failed=any(
                other.state == RunState.DONE and other.reason != TerminationReason.SUCCEEDED
                for other in job.runs
                if other.position < run.position
            ),
            admitted=run.id in decided.admitted,
            wait=decided.waiting.get(run.id),
            ray=self._ray_status(attempt) if attempt and not outcome else RayStatus.UNKNOWN,
            heartbeat_at=attempt.heartbeat_at if attempt else None,
            deaf_until=self._deaf_until,
            outcome=outcome,
            stop_reason=TerminationReason(run.reason) if run.reason else None,
            stop_message=run.message or "",
        )

    def _ray_status(self, attempt: Attempt) -> RayStatus:
        try:
            return self._world.ray.status(attempt.id)
        except ServiceError as error:
            log.warning("%s", error)
            return RayStatus.UNKNOWN

    def _nodes(self) -> list[policy.Node] | None:
        try:
            return self._world.ray.nodes()
        except ServiceError as error:
            log.warning("%s", error)
            return None

    def _settle(self, session: Session, job: Job, now: datetime) -> None:
        """Give the job the status that its runs add up to."""
        if any(run.state in ACTIVE for run in job.runs) and job.status == JobStatus.QUEUED:
            job.status = JobStatus.RUNNING
        if not all(run.state == RunState.DONE for run in job.runs):
            return
        waited = now - max(run.finished_at for run in job.runs if run.finished_at)
        if not tracker.is_complete(job) and waited < TRACKING_PATIENCE:
            return
        failed = next((run for run in job.runs if run.reason != TerminationReason.SUCCEEDED), None)
        if failed is None:
            job.status, job.fine_tuned_model = JobStatus.SUCCEEDED, _model_name(job)
            message = f"the job succeeded; its model is {job.fine_tuned_model}"
        elif failed.reason == TerminationReason.CANCELLED:
            job.status = JobStatus.CANCELLED
            message = "the job was cancelled"
        else:
            job.status = JobStatus.FAILED
            message = f"{failed.kind} failed ({failed.reason}): {failed.message}"
            job.error = {"code": failed.reason, "message": message, "param": None}
        job.finished_at = now
        add_event(session, job.id, message, level="error" if job.status == JobStatus.FAILED else "info")


def _plan(jobs: Sequence[Job], nodes: list[policy.Node] | None, now: datetime) -> policy.Plan:
    waiting: list[policy.PendingRun] = []
    active: list[policy.Gang] = []
    for job in jobs:
        gang = policy.Gang.of(JobRequest.model_validate(job.request).resources)
        for run in job.runs:
            if run.state in ACTIVE:
                active.append(gang)
            elif run.state == RunState.PENDING:
                parent = next((p for p in job.runs if p.position < run.position and p.state != RunState.DONE), None)
                waiting.append(
                    policy.PendingRun(
                        run_id=run.id,
                        job_order=(job.created_at, f"{job.id}/{run.position}"),
                        gang=gang,
                        parents_done=parent is None,
                        parent_name=parent.kind if parent else "",
                        not_before=run.not_before,
                    )
                )
    return policy.plan(waiting, active, nodes, now)


def _apply(session: Session, job: Job, run: Run, transition: Transition, now: datetime) -> None:
    if transition.state == run.state:
        if transition.wait:
            run.wait_code, run.wait_message = transition.wait.code, transition.wait.message
        return
    run.state, run.since = transition.state, now
    run.reason, run.message = transition.reason, transition.message
    run.wait_code = run.wait_message = None
    if transition.state == RunState.STARTING:
        number = len(run.attempts) + 1
        run.attempts.append(
            Attempt(id=f"{run.id}-{number}", number=number, token=secrets.token_urlsafe(32), created_at=now)
        )
        run.started_at = run.started_at or now
        run.progress = None
    elif transition.state == RunState.PENDING:
        run.not_before = now + timedelta(seconds=transition.retry_after or 0)
        message = f"{run.kind}: {transition.message}; trying again in {transition.retry_after:.0f} s"
        add_event(session, job.id, message, level="warn")
    elif transition.state == RunState.DONE:
        run.finished_at = now
        _take_outputs(session, job, run)
        seconds = (now - run.started_at).total_seconds() if run.started_at else 0.0
        add_event(session, job.id, f"{run.kind} {transition.reason} after {seconds:.0f} s")
    elif transition.state == RunState.RUNNING:
        add_event(session, job.id, f"{run.kind} started")


def _model_name(job: Job) -> str:
    """The model's name for the API, in OpenAI's form."""
    request = JobRequest.model_validate(job.request)
    return f"ft:{request.model}:default:{request.suffix or ''}:{job.id.removeprefix('ftjob-')}"


def _finish_attempt(run: Run, transition: Transition, now: datetime) -> None:
    attempt = run.attempts[-1]
    attempt.finished_at, attempt.reason, attempt.message = now, transition.reason, transition.message


def _take_outputs(session: Session, job: Job, run: Run) -> None:
    outcome = run.attempts[-1].outcome if run.attempts else None
    if not outcome:
        return
    parsed = Outcome.model_validate(outcome)
    run.outputs = parsed.outputs
    for result in parsed.result_files:
        file = File(
            id=new_id("file"),
            key=result.key,
            filename=result.filename,
            purpose="fine-tune-results",
            bytes=result.bytes,
            sha256="",
            status="processed",
        )
        session.add(file)
        job.result_files = [*job.result_files, file.id]


def _save_snapshot(session: Session, jobs: Sequence[Job], nodes: list[policy.Node] | None, now: datetime) -> None:
    """What ``GET /v1/cluster`` shows; the previous nodes stay while Ray does not answer."""
    snapshot = session.get(ClusterSnapshot, 1) or ClusterSnapshot(id=1, view={"nodes": []})
    old_nodes = snapshot.view.get("nodes", [])
    runs = [(job, run) for job in jobs for run in job.runs]
    snapshot.updated_at = now
    snapshot.view = {
        "reachable": nodes is not None,
        "nodes": old_nodes if nodes is None else [vars(node) for node in nodes],
        "running": [_shown(job, run) for job, run in runs if run.state in ACTIVE],
        "waiting": [
            _shown(job, run)
            for job, run in runs
            if run.state == RunState.PENDING and run.wait_code not in (None, "parent_not_done")
        ],
    }
    session.add(snapshot)


def _shown(job: Job, run: Run) -> dict[str, object]:
    resources = JobRequest.model_validate(job.request).resources
    return {
        "job_id": job.id,
        "run": RunKind(run.kind),
        "state": run.state,
        "needs": str(policy.Gang.of(resources)),
        "nodes": (run.progress or {}).get("nodes", []),
        "why": run.wait_message,
    }
