"""Fine-tuning jobs, with their events, logs and checkpoints."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from ibllm_core.contract.api.common import Page
from ibllm_core.contract.api.estimate import Estimate
from ibllm_core.contract.api.jobs import (
    AttemptLog,
    FineTuningJob,
    FineTuningJobCheckpoint,
    FineTuningJobEvent,
    ResumeRequest,
)
from ibllm_core.contract.job_spec import Budget
from ibllm_core.contract.states import RunKind
from ibllm_core.contract.submission import JobSubmission
from orchestrator.client.errors import TEMPORARY, NotReachableError
from orchestrator.client.parsing import parse
from orchestrator.client.retry import Patience
from orchestrator.client.sse import require_events, server_events
from orchestrator.client.transport import Transport, segment

PATH = "/fine_tuning/jobs"
SILENCE_SECONDS = 45.0  # the service says something every 15
PATIENCE_SECONDS = 600.0  # of a stream that is cut off


class Jobs:
    """``/v1/fine_tuning/jobs``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(
        self, submission: JobSubmission | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> FineTuningJob:
        """Create a job, once, however often the request has to be sent.

        A program that may be killed in between gives a key of its own, and finds the job of its first try.
        """
        key = idempotency_key or str(uuid.uuid4())
        return self._transport.call(
            FineTuningJob, "POST", PATH, body=submission, headers={"idempotency-key": key}, is_repeatable=True
        )

    def estimate(self, submission: JobSubmission | Mapping[str, Any]) -> Estimate:
        """Check a job as ``submit`` would, and tell what it would take; nothing is created."""
        query = {"dry_run": "true"}
        return self._transport.call(Estimate, "POST", PATH, body=submission, query=query, is_repeatable=True)

    def list(self, *, metadata: Mapping[str, str] | None = None, limit: int | None = None) -> Iterator[FineTuningJob]:
        """Jobs, newest first, that have all pairs of ``metadata``."""
        query = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        return self._transport.pages(FineTuningJob, PATH, limit=limit, query=query)

    def retrieve(self, job_id: str) -> FineTuningJob:
        """One job with its runs."""
        return self._transport.call(FineTuningJob, "GET", _path(job_id))

    def cancel(self, job_id: str) -> FineTuningJob:
        """Ask for the job's end."""
        return self._transport.call(FineTuningJob, "POST", _path(job_id, "cancel"), is_repeatable=True)

    def pause(self, job_id: str) -> FineTuningJob:
        """Ask for a pause: what runs saves its step and lets its workers go."""
        return self._transport.call(FineTuningJob, "POST", _path(job_id, "pause"), is_repeatable=True)

    def resume(self, job_id: str, *, gpu_hours: float | None = None) -> FineTuningJob:
        """Let a paused job go on, with a new budget of ``gpu_hours`` for all of it where one is given."""
        body = ResumeRequest(budget=Budget(gpu_hours=gpu_hours)) if gpu_hours is not None else None
        return self._transport.call(FineTuningJob, "POST", _path(job_id, "resume"), body=body)

    def checkpoints(self, job_id: str, *, limit: int | None = None) -> Iterator[FineTuningJobCheckpoint]:
        """The checkpoints that a job has now, newest first."""
        return self._transport.pages(FineTuningJobCheckpoint, _path(job_id, "checkpoints"), limit=limit)

    def events(self, job_id: str, *, limit: int | None = None) -> Iterator[FineTuningJobEvent]:
        """What has happened so far, newest first."""
        return self._transport.pages(FineTuningJobEvent, _path(job_id, "events"), limit=limit)

    def stream_events(
        self, job_id: str, *, after: str | None = None, patience: float = PATIENCE_SECONDS
    ) -> Iterator[FineTuningJobEvent]:
        """All events after the one of the id ``after``, oldest first, and then each as it happens, until the job ends.

        A connection that breaks is made anew, for ``patience`` seconds, and goes on behind the last event.
        """
        path, trust = _path(job_id, "events"), Patience(patience)
        while True:
            headers = {"last-event-id": after} if after else {}
            try:
                with self._transport.stream(
                    "GET", path, query={"stream": "true"}, headers=headers, read_timeout=SILENCE_SECONDS
                ) as response:
                    require_events(response)
                    for told in server_events(_restoring(trust, response)):
                        if told.name == "done":
                            return
                        after = told.id
                        yield parse(FineTuningJobEvent, json.loads(told.data))
                raise NotReachableError(f"the events of {job_id} ended before the job did: ask for them again")
            except TEMPORARY as error:
                trust.wait(error)

    def logs(self, job_id: str) -> Sequence[AttemptLog]:
        """Which logs there are, newest first."""
        page = self._transport.call(Page[AttemptLog], "GET", _path(job_id, "logs"))
        return page.data

    def read_log(
        self,
        job_id: str,
        run: RunKind | str,
        *,
        attempt: int | None = None,
        follow: bool = False,
        patience: float = PATIENCE_SECONDS,
    ) -> Iterator[bytes]:
        """The log of a run's newest attempt, or of the one named; with ``follow`` until the attempt has ended.

        A connection that breaks is made anew, and what was told is not told again.
        """
        query = {"follow": str(follow).lower(), **({"attempt": attempt} if attempt else {})}
        path, trust, told = _path(job_id, "logs", str(run)), Patience(patience), 0
        while True:
            place = 0
            try:
                with self._transport.stream("GET", path, query=query, read_timeout=PATIENCE_SECONDS) as response:
                    for chunk in _restoring(trust, response):
                        new = chunk[max(told - place, 0) :]
                        place += len(chunk)
                        if new:
                            told = place
                            yield new
                return
            except TEMPORARY as error:
                trust.wait(error)


def _restoring(trust: Patience, response: httpx.Response) -> Iterator[bytes]:
    """The bytes of a stream, each of which shows that the service is there."""
    for chunk in response.iter_bytes():
        trust.restore()
        yield chunk


def _path(job_id: str, *more: str) -> str:
    return "/".join((PATH, segment(job_id), *map(segment, more)))
