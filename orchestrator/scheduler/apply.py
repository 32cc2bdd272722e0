"""A transition in the database, with its events and what it asks the outbox for; the caller commits."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.run_spec import Outcome
from ibllm_core.contract.states import RunState
from orchestrator.db.events import add_event
from orchestrator.db.models import Attempt, File, Job, Run
from orchestrator.ids import new_id
from orchestrator.outbox import messages
from orchestrator.scheduler.policy import Gang
from orchestrator.scheduler.views import Transition


def apply(session: Session, job: Job, run: Run, transition: Transition, now: datetime) -> None:
    """Bring a run into its next state; where that is the present one only the reason of its waiting changes."""
    if transition.state == run.state:
        if transition.wait:
            run.wait_code, run.wait_message = transition.wait.code, transition.wait.message
        return
    run.state, run.since = transition.state, now
    run.reason, run.message = transition.reason, transition.message
    run.wait_code = run.wait_message = None
    if transition.state == RunState.STARTING:
        _begin_attempt(session, job, run, now)
    elif transition.state == RunState.PENDING:
        _wait_again(session, job, run, transition, now)
    elif transition.state == RunState.DONE:
        run.finished_at = now
        _take_outputs(session, job, run)
        seconds = (now - run.started_at).total_seconds() if run.started_at else 0.0
        add_event(session, job.id, f"{run.kind} {transition.reason} after {seconds:.0f} s")
    elif transition.state == RunState.RUNNING:
        add_event(session, job.id, f"{run.kind} started")


def finish_attempt(run: Run, transition: Transition, now: datetime) -> None:
    """Note how the newest attempt ended."""
    attempt = run.attempts[-1]
    attempt.finished_at, attempt.reason, attempt.message = now, transition.reason, transition.message


def _begin_attempt(session: Session, job: Job, run: Run, now: datetime) -> None:
    number = len(run.attempts) + 1
    attempt = Attempt(
        id=f"{run.id}-{number}",
        project_id=job.project_id,
        number=number,
        gpus=Gang.of(JobRequest.model_validate(job.request).resources_of(run.kind)).all_gpus,
        token=secrets.token_urlsafe(32),
        created_at=now,
    )
    run.attempts.append(attempt)
    run.started_at = run.started_at or now
    run.progress = None
    messages.add(session, messages.Kind.SUBMIT, {"attempt_id": attempt.id})


def _wait_again(session: Session, job: Job, run: Run, transition: Transition, now: datetime) -> None:
    wait = transition.retry_after or 0.0
    run.not_before = now + timedelta(seconds=wait)
    if transition.reason and transition.reason.is_free:
        add_event(session, job.id, f"{run.kind} was {transition.reason} and goes on from its last step later")
    else:
        message = f"{run.kind}: {transition.message}; trying again in {wait:.0f} s"
        add_event(session, job.id, message, level="warn")


def _take_outputs(session: Session, job: Job, run: Run) -> None:
    outcome = run.attempts[-1].outcome if run.attempts else None
    if not outcome:
        return
    parsed = Outcome.model_validate(outcome)
    run.outputs = parsed.outputs
    for result in parsed.result_files:
        file = File(
            id=new_id("file"),
            project_id=job.project_id,
            key=result.key,
            filename=result.filename,
            purpose="fine-tune-results",
            bytes=result.bytes,
            status="processed",
        )
        session.add(file)
        job.result_files = [*job.result_files, file.id]
