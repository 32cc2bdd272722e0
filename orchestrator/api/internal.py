"""What attempts say to the service: progress, events, the outcome. Each attempt has a token of its own."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from ibllm_core.contract.run_spec import CheckpointReport, EventReport, Outcome, Progress
from orchestrator.api.dependencies import SessionOf, bearer_of
from orchestrator.db.events import add_event
from orchestrator.db.models import Attempt, Checkpoint, Project, Run
from orchestrator.errors import AuthenticationError, ConflictError
from orchestrator.ids import new_id
from orchestrator.jobs.naming import checkpoint_name


def _attempt(attempt_id: str, session: SessionOf, authorization: Annotated[str | None, Header()] = None) -> Attempt:
    """The attempt whose token the caller has; an ended attempt may not speak any more."""
    attempt = session.get(Attempt, attempt_id)
    if attempt is None or not secrets.compare_digest(bearer_of(authorization).encode(), attempt.token.encode()):
        raise AuthenticationError("this token does not belong to an attempt of that id")
    if attempt.finished_at is not None:
        raise ConflictError(f"attempt {attempt_id} has ended ({attempt.reason}); stop the process that still speaks")
    return attempt


AttemptOf = Annotated[Attempt, Depends(_attempt)]
router = APIRouter(prefix="/internal/attempts/{attempt_id}", include_in_schema=False)


@router.post("/progress", status_code=204)
def progress(body: Progress, attempt: AttemptOf, session: SessionOf) -> Response:
    """A heartbeat. Written past the run's version guard: it decides nothing. Rank 0 speaks for the attempt."""
    now = datetime.now(UTC)
    seen = {str(body.rank): {"step": body.step, "at": now.isoformat(timespec="seconds")}}
    # One statement, since ranks speak at the same time.
    changes: dict[str, Any] = {"ranks": Attempt.ranks.op("||")(seen)}
    if body.rank == 0:
        # The run before its attempt, as the scheduler writes them: two orders would be a deadlock.
        shown = body.model_dump(mode="json", exclude={"rank"})
        session.execute(update(Run).where(Run.id == attempt.run_id).values(progress=shown))
        changes["heartbeat_at"] = now
    session.execute(update(Attempt).where(Attempt.id == attempt.id).values(changes))
    session.commit()
    return Response(status_code=204)


@router.post("/events", status_code=204)
def event(body: EventReport, attempt: AttemptOf, session: SessionOf) -> Response:
    """A line of the job's story; one that is told again, since its answer was lost, is there already."""
    run = session.get_one(Run, attempt.run_id)
    add_event(
        session,
        run.job_id,
        body.message,
        level=body.level,
        type=body.type,
        data=body.data,
        event_id=f"ftevent-{body.id}",
    )
    session.commit()
    return Response(status_code=204)


@router.post("/checkpoints", status_code=204)
def checkpoint(body: CheckpointReport, attempt: AttemptOf, session: SessionOf) -> Response:
    """A checkpoint that can be used from now on; those that the run no longer keeps are gone from the list."""
    run = session.get_one(Run, attempt.run_id)
    organization_id = session.scalar(select(Project.organization_id).where(Project.id == attempt.project_id))
    values = {
        "id": new_id("ftckpt"),
        "job_id": run.job_id,
        "run_id": run.id,
        "step": body.step,
        "prefix": body.prefix,
        "metrics": body.metrics,
        "model": checkpoint_name(run.job, run.kind, body.step, str(organization_id)),
    }
    added = session.execute(insert(Checkpoint).values(values).on_conflict_do_nothing().returning(Checkpoint.id))
    if added.first() is not None:
        message = f"{run.kind}: the checkpoint of step {body.step} can be used"
        add_event(session, run.job_id, message, data={"model": values["model"], "step": body.step})
    gone = delete(Checkpoint).where(Checkpoint.run_id == run.id, Checkpoint.step.not_in([*body.kept, body.step]))
    session.execute(gone)
    session.commit()
    return Response(status_code=204)


@router.post("/outcome", status_code=204)
def outcome(body: Outcome, attempt: AttemptOf, session: SessionOf) -> Response:
    """How the attempt ended; the first word counts."""
    if attempt.outcome is None:
        attempt.outcome = body.model_dump(mode="json")
        session.commit()
    return Response(status_code=204)
