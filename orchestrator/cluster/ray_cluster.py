"""All that the service knows of Ray: handing over attempts, stopping them, nodes, logs.

Talks HTTP to Ray's dashboard. Ray's token comes from the environment (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN_PATH``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes

from orchestrator.errors import ClusterUnreachableError
from orchestrator.scheduler.policy import Node
from orchestrator.scheduler.views import RayStatus

WORKER_ENTRY = "workers.entry"
STATE_TIMEOUT_SECONDS = 10


class RayCluster:
    """One Ray cluster, by the address of its dashboard. Every method raises ``ClusterUnreachableError`` alone."""

    def __init__(self, dashboard_url: str, python: str) -> None:
        self._url = dashboard_url
        self._python = python
        self._client: JobSubmissionClient | None = None

    def submit(self, attempt_id: str, spec_key: str) -> None:
        """Hand an attempt to Ray; doing it again finds the first one."""
        if self.status(attempt_id) is not RayStatus.MISSING:
            return
        with self._translated():
            self._jobs().submit_job(
                entrypoint=f"exec {self._python} -m {WORKER_ENTRY} {spec_key}",
                submission_id=attempt_id,
                entrypoint_num_cpus=0,
            )

    def status(self, attempt_id: str) -> RayStatus:
        """What Ray says of an attempt."""
        with self._translated():
            try:
                status = self._jobs().get_job_status(attempt_id)
            except RuntimeError as error:
                if "404" in str(error) or "does not exist" in str(error):
                    return RayStatus.MISSING
                raise
        return RayStatus.ALIVE if status in (JobStatus.PENDING, JobStatus.RUNNING) else RayStatus.ENDED

    def stop(self, attempt_id: str) -> None:
        """Ask Ray to stop an attempt; harmless where it has ended."""
        if self.status(attempt_id) is RayStatus.ALIVE:
            with self._translated():
                self._jobs().stop_job(attempt_id)

    def logs(self, attempt_id: str) -> str:
        """The driver's output so far."""
        with self._translated():
            return str(self._jobs().get_job_logs(attempt_id))

    def nodes(self) -> list[Node]:
        """The live nodes that offer CPUs or GPUs."""
        with self._translated():
            found = list_nodes(address=self._url, timeout=STATE_TIMEOUT_SECONDS, raise_on_missing_output=False)
            return [
                Node(
                    node_id=node.node_id,
                    cpus=float((node.resources_total or {}).get("CPU", 0)),
                    gpus=float((node.resources_total or {}).get("GPU", 0)),
                )
                for node in found
                if node.state == "ALIVE"
            ]

    def _jobs(self) -> JobSubmissionClient:
        if self._client is None:
            self._client = JobSubmissionClient(self._url)
        return self._client

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            self._client = None  # a restarted head needs a new handshake
            raise ClusterUnreachableError(f"Ray at {self._url} does not answer: {error}") from error
        except Exception as error:
            # Ray's state API raises its own types, which derive from Exception alone.
            if type(error).__module__.startswith("ray."):
                self._client = None
                raise ClusterUnreachableError(f"Ray at {self._url} does not answer: {error}") from error
            raise
