"""What the API asks Ray's dashboard, over HTTP alone: importing Ray would take longer than the whole API's start."""

from __future__ import annotations

import httpx

from orchestrator.cluster.settings import RaySettings
from orchestrator.errors import ClusterUnreachableError

SECONDS = 10.0


class Dashboard:
    """Ray's dashboard by its address."""

    def __init__(self, settings: RaySettings) -> None:
        self._url = settings.dashboard_url
        self._http = httpx.Client(
            base_url=settings.dashboard_url or "http://none",
            headers=settings.headers,
            timeout=SECONDS,
            trust_env=False,
        )

    def job_log(self, submission_id: str) -> str:
        """What a Ray job has printed so far; ``ClusterUnreachableError`` where Ray is away or knows no such job."""
        try:
            answer = self._http.get(f"/api/jobs/{submission_id}/logs")
            answer.raise_for_status()
            return str(answer.json()["logs"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ClusterUnreachableError(f"Ray at {self._url} has no log of {submission_id}: {error}") from error
