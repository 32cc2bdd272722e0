"""Words to the service: heartbeats, events and the outcome, over HTTP with the attempt's own token.

Training never waits for the service: a thread sends the newest progress every second, and what cannot be delivered is
tried again until the process ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from types import TracebackType

import httpx

from ibllm_core.contract.run_spec import AttemptSpec, EventReport, Outcome, Progress

HEARTBEAT_SECONDS = 1.0
OUTCOME_PATIENCE_SECONDS = 300.0
log = logging.getLogger(__name__)


class Reporter:
    """Context manager around an attempt's life; one in the driver, one in rank 0."""

    def __init__(self, spec: AttemptSpec) -> None:
        self._client = httpx.Client(
            base_url=f"{spec.service_url}/internal/attempts/{spec.attempt_id}",
            headers={"authorization": f"Bearer {spec.token}"},
            timeout=10.0,
            trust_env=False,  # the service is on the cluster's own network, never behind a proxy
        )
        self._progress: Progress | None = None
        self._events: list[EventReport] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(timeout=15)
        self._client.close()

    def progress(self, progress: Progress) -> None:
        """Replace what the next heartbeat says; never blocks."""
        with self._lock:
            self._progress = progress

    def event(self, message: str, *, level: str = "info", data: Mapping[str, object] | None = None) -> None:
        """Queue an event for the user to read; never blocks."""
        report = EventReport.model_validate({"level": level, "message": message, "data": dict(data or {})})
        with self._lock:
            self._events.append(report)
        self._wake.set()

    def outcome(self, outcome: Outcome) -> None:
        """Say how the attempt ended; tries for five minutes, then leaves it to the reconciler."""
        deadline = time.monotonic() + OUTCOME_PATIENCE_SECONDS
        while not self._post("/outcome", outcome.model_dump_json()):
            if time.monotonic() > deadline:
                log.error("the service did not take the outcome %s", outcome.reason)
                return
            self._wake.wait(HEARTBEAT_SECONDS)

    def _run(self) -> None:
        while True:
            closing = self._closing
            self._send_queued()
            if closing:
                return
            self._wake.wait(HEARTBEAT_SECONDS)
            self._wake.clear()

    def _send_queued(self) -> None:
        with self._lock:
            progress, events = self._progress, list(self._events)
        for sent, event in enumerate(events):
            if not self._post("/events", event.model_dump_json()):
                with self._lock:
                    del self._events[:sent]
                return
        with self._lock:
            del self._events[: len(events)]
        if progress is not None:
            self._post("/progress", progress.model_dump_json())

    def _post(self, path: str, body: str) -> bool:
        """Whether the service took it. A refusal (4xx) is final: repeating it would change nothing."""
        try:
            response = self._client.post(path, content=body, headers={"content-type": "application/json"})
        except httpx.HTTPError as error:
            log.warning("the service cannot be reached: %s", error)
            return False
        if response.is_client_error:
            log.error("the service refused %s: %s", path, response.text)
        return not response.is_server_error
