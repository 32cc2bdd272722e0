"""Load, decide, apply: one pass over all open jobs. Decisions are pure; the database is the owner of truth."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from types import ModuleType

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from ibllm_core.contract.job_spec import JobRequest, RetryPolicy
from ibllm_core.contract.run_spec import Outcome
from ibllm_core.contract.states import JobStatus, RunState, TerminationReason
from ibllm_core.errors import CoreError
from orchestrator.db.models import Attempt, Job, Run
from orchestrator.errors import ServiceError
from orchestrator.outbox.backoff import Backoff
from orchestrator.outbox.courier import Courier
from orchestrator.outbox.messages import Kind
from orchestrator.scheduler import effects, policy, queue, usage, validation
from orchestrator.scheduler.apply import apply, finish_attempt
from orchestrator.scheduler.queue import ACTIVE
from orchestrator.scheduler.settling import settle
from orchestrator.scheduler.snapshot import save_snapshot
from orchestrator.scheduler.states import pending, running, starting, stopping
from orchestrator.scheduler.views import RayStatus, RunView, Transition

DECIDERS: dict[str, ModuleType] = {
    RunState.PENDING: pending,
    RunState.STARTING: starting,
    RunState.RUNNING: running,
    RunState.STOPPING: stopping,
}
OPEN_STATUSES = (JobStatus.QUEUED, JobStatus.RUNNING)
WISHES = ("status", "pause_requested", "cancel_requested")
CLEAN_INTERVAL = timedelta(hours=1)
SUBMIT_BACKOFF = Backoff(first=1.0, longest=10.0)
log = logging.getLogger(__name__)


class Reconciler:
    """Moves the runs of all open jobs as far as they go now."""

    def __init__(self, sessions: sessionmaker[Session], world: effects.World) -> None:
        self._sessions = sessions
        self._world = world
        self._deaf_until = datetime.now(UTC)
        self._cleaned_at = datetime.now(UTC)
        self._validated_until: validation.Place | None = None
        submit = partial(effects.submit, world, sessions)
        self._submits = Courier(sessions, Kind.SUBMIT, submit, backoff=SUBMIT_BACKOFF)

    def run_once(self) -> None:
        """One pass. A run that fails to move is logged and tried again in the next pass."""
        now = datetime.now(UTC)
        nodes = self._nodes()
        with self._sessions() as session:
            self._validated_until = validation.settle_validated(session, self._world.shop, self._validated_until)
            jobs = session.scalars(select(Job).where(Job.status.in_(OPEN_STATUSES)).order_by(Job.created_at)).all()
            usage.pause_spent(session, jobs, now)
            opened = [(job, JobRequest.model_validate(job.request)) for job in jobs]
            decided = queue.plan_jobs(opened, nodes, now, usage.quotas_of(session, jobs, now))
            save_snapshot(session, opened, nodes, now)
            session.commit()
        if jobs and not effects.service_answers(self._world):
            self._deaf_until = now
        for job_id in [job.id for job in jobs]:
            self._move_job(job_id, decided, now)
        self._submits.run_once()
        if now - self._cleaned_at > CLEAN_INTERVAL:
            self._submits.clean()
            self._cleaned_at = now

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
                # The user may have changed their mind while Ray was asked.
                session.refresh(job, WISHES, with_for_update={"key_share": True})
                settle(session, job, now)
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
            finish_attempt(run, transition, now)
            effects.keep_log(self._world, run.attempts[-1])
        apply(session, job, run, transition, now)

    def _view(self, job: Job, run: Run, decided: policy.Plan, now: datetime) -> RunView:
        attempt = run.attempts[-1] if run.attempts and run.state in ACTIVE else None
        outcome = Outcome.model_validate(attempt.outcome) if attempt and attempt.outcome else None
        return RunView(
            now=now,
            since=run.since,
            num_attempts=sum(1 for a in run.attempts if not (a.reason and TerminationReason(a.reason).is_free)),
            retry=RetryPolicy.model_validate(job.request.get("retry") or {}),
            cancel_requested=job.cancel_requested,
            pause_requested=job.pause_requested,
            parent_failed=any(
                other.state == RunState.DONE and other.reason != TerminationReason.SUCCEEDED
                for other in job.runs
                if other.position < run.position
            ),
            admitted=run.id in decided.admitted,
            wait=decided.waiting.get(run.id),
            ray=self._ray_status(attempt) if attempt and not outcome else RayStatus.UNKNOWN,
            is_submitted=attempt is not None and attempt.submitted_at is not None,
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
