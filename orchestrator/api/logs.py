"""``/v1/fine_tuning/jobs/{id}/logs``: what the processes of attempts printed, live and after the cluster is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from ibllm_core.contract.api.common import Page
from ibllm_core.contract.api.jobs import AttemptLog
from ibllm_core.contract.states import RunKind
from orchestrator.api.dependencies import JobsReader, SessionOf
from orchestrator.api.errors import Responses
from orchestrator.api.jobs import find
from orchestrator.api.pages import page
from orchestrator.db.models import Job
from orchestrator.errors import NotFoundError
from orchestrator.jobs.attempt_logs import AttemptLogs, Place, Reading

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])
LOOK_SECONDS = 1.0
TEXT: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The log"}}


@router.get("/{job_id}/logs", response_model=Page[AttemptLog])
def list_logs(job_id: str, caller: JobsReader, session: SessionOf) -> Page[AttemptLog]:
    """Which logs there are, of all attempts of all runs, the newest first."""
    job = find(session, caller, job_id)
    logs = [
        AttemptLog(
            id=f"{run.kind}-{attempt.number}",
            run=RunKind(run.kind),
            attempt=attempt.number,
            is_live=attempt.finished_at is None,
        )
        for run in job.runs
        for attempt in run.attempts
    ]
    return page(logs[::-1], len(logs), lambda log: log)


@router.get("/{job_id}/logs/{run}", response_class=StreamingResponse, responses=TEXT)
def read(
    job_id: str,
    run: RunKind,
    request: Request,
    caller: JobsReader,
    session: SessionOf,
    attempt: Annotated[int | None, Query(ge=1, le=100_000, description="null: the newest")] = None,
    follow: Annotated[bool, Query(description="go on until the attempt has ended")] = False,
) -> Response:
    """The log of one attempt as text, from Ray while it runs and from the object store afterwards."""
    job = find(session, caller, job_id)
    place = _place(job, run, attempt)
    session.close()  # else a followed log would keep a connection of the database
    logs: AttemptLogs = request.app.state.attempt_logs
    first = logs.read(place)  # what fails does so before an answer has begun
    if not follow:
        return PlainTextResponse(first.text)
    return StreamingResponse(_growing(logs, place, first), media_type="text/plain; charset=utf-8")


async def _growing(logs: AttemptLogs, place: Place, reading: Reading) -> AsyncIterator[bytes]:
    told = 0
    while True:
        if len(reading.text) > told:
            yield reading.text[told:]
            told = len(reading.text)
        if not reading.is_live:
            return
        await asyncio.sleep(LOOK_SECONDS)
        reading = await run_in_threadpool(logs.read, place)


def _place(job: Job, kind: RunKind, number: int | None) -> Place:
    run = next((run for run in job.runs if run.kind == kind), None)
    attempts = run.attempts if run else []
    found = next((attempt for attempt in reversed(attempts) if number in (None, attempt.number)), None)
    if found is None:
        what = f"attempt {number} of {kind}" if number else f"attempt of {kind} yet"
        raise NotFoundError(
            f"job {job.id} has no {what}: GET /v1/fine_tuning/jobs/{job.id}/logs lists logs", param="run"
        )
    return Place(job_id=job.id, run=kind, attempt=found.number, attempt_id=found.id)
