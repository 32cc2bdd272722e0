"""The model server as Ray Serve knows it, through the REST interface of Ray's dashboard."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from orchestrator.cluster.settings import RaySettings
from orchestrator.inference.errors import ModelServerError
from orchestrator.inference.settings import ServingSettings

NAME = "ibllm"
ROUTE = "/ibllm"
IMPORT_PATH = "workers.serve.app:build"
APPLICATIONS = "/api/serve/applications/"
RUNNING, DEPLOY_FAILED = "RUNNING", "DEPLOY_FAILED"
LOOK_SECONDS = 0.25  # between two looks at a server that starts
CALL_SECONDS = 60.0  # the first one starts Serve itself


class ServeApplication:
    """Our application among those that a Ray cluster serves."""

    def __init__(self, settings: ServingSettings, ray: RaySettings) -> None:
        self._settings = settings
        self._ray = ray
        self._url = ray.dashboard_url.rstrip("/") + APPLICATIONS
        self._wanted: dict[str, Any] = {
            "name": NAME,
            "import_path": IMPORT_PATH,
            "route_prefix": ROUTE,
            "args": settings.server_args().model_dump(),
        }

    async def ensure(self) -> None:
        """Deploy it where it is not there, or is another one, and wait until it can be asked.

        ``ModelServerError`` says why it does not start. Two may do so at once: they ask for the same.
        """
        deadline = time.monotonic() + self._settings.start_seconds
        async with httpx.AsyncClient(headers=self._ray.headers, timeout=CALL_SECONDS, trust_env=False) as dashboard:
            found = await self._serving(dashboard)
            if not self._is_ours(found) or _status(found) == DEPLOY_FAILED:
                await self._deploy(dashboard, found)
            while _status(found := await self._serving(dashboard)) != RUNNING or not await self._is_routed(dashboard):
                if _status(found) == DEPLOY_FAILED:
                    raise _does_not_start(_ours(found).get("message", "")[-1000:])
                if time.monotonic() > deadline:
                    raise _does_not_start(self._told(found))
                await asyncio.sleep(LOOK_SECONDS)

    async def _serving(self, dashboard: httpx.AsyncClient) -> dict[str, Any]:
        details: dict[str, Any] = (await self._call(dashboard, "GET")).json()
        return details

    def _is_ours(self, found: dict[str, Any]) -> bool:
        return bool(_ours(found).get("deployed_app_config") == self._wanted)

    async def _deploy(self, dashboard: httpx.AsyncClient, found: dict[str, Any]) -> None:
        """Put our application beside the others: whatever a new configuration leaves out, Serve takes down."""
        others = [
            app["deployed_app_config"]
            for name, app in found.get("applications", {}).items()
            if name != NAME and app.get("deployed_app_config")
        ]
        kept = {
            key: found[key]
            for key in ("proxy_location", "http_options", "grpc_options", "target_capacity")
            if found.get("controller_info") and found.get(key)
        }
        ours = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": self._settings.host, "port": self._settings.port},
        }
        await self._call(dashboard, "PUT", {**ours, **kept, "applications": [*others, self._wanted]})

    async def _is_routed(self, client: httpx.AsyncClient) -> bool:
        """Whether Serve's HTTP proxy listens, and knows our application: it hears of it a moment later."""
        try:
            answer = await client.get(f"{self._settings.url}/-/routes", headers={"Authorization": ""})
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK and ROUTE in answer.json()

    def _told(self, found: dict[str, Any]) -> str:
        waited = f"after {self._settings.start_seconds:g} s"
        if _status(found) == RUNNING:
            return (
                f"{waited} it runs, but {self._settings.url} does not lead to it; Serve listens at "
                f"{found.get('http_options')}: set IBLLM_SERVE_URL and IBLLM_SERVE_HOST to that"
            )
        reason = _ours(found).get("message") or "no reason given"
        return (
            f"{waited} it is {_status(found) or 'not there'} ({reason}): raise IBLLM_SERVE_START_SECONDS, or see the "
            "Serve page of Ray's dashboard"
        )

    async def _call(
        self, dashboard: httpx.AsyncClient, method: str, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        try:
            answer = await dashboard.request(method, self._url, json=body)
        except httpx.HTTPError as error:
            raise _does_not_start(
                f"Ray's dashboard at {self._url} does not answer ({error or type(error).__name__})"
            ) from error
        if answer.status_code != httpx.codes.OK:
            raise _does_not_start(f"Ray's dashboard answers with {answer.status_code}: {answer.text[:500]}")
        return answer


def _ours(found: dict[str, Any]) -> dict[str, Any]:
    application: dict[str, Any] = found.get("applications", {}).get(NAME, {})
    return application


def _status(found: dict[str, Any]) -> str:
    return str(_ours(found).get("status", ""))


def _does_not_start(why: str) -> ModelServerError:
    return ModelServerError(f"the model server does not start: {why}")
