"""The service's way to its model server: chat requests in, answers out, errors as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from ibllm_core.contract.chat import ChatRequest
from ibllm_core.contract.serving import MODEL_HEADER, ServedAdapter
from orchestrator.cluster.settings import RaySettings
from orchestrator.errors import ServiceError
from orchestrator.inference.application import ROUTE, ServeApplication
from orchestrator.inference.errors import ModelServerBusyError, ModelServerError, PassedOnError
from orchestrator.inference.settings import ServingSettings
from orchestrator.inference.streams import EventStream

SILENCE_SECONDS = 900.0  # OpenAI's clients wait 600 for an answer
PATIENCE_SECONDS = 3.0  # after which a stream begins without knowing whether it is refused
BUSY_SECONDS = 5.0
TRIES = 2


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A fine-tuned model: its id, base, encoder, and its adapter's prefix in the object store."""

    id: str
    base: str
    encoder: str
    adapter: str


class Gateway:
    """One model server. Every method raises ``ServiceError`` alone; an instance belongs to one event loop."""

    def __init__(self, settings: ServingSettings, ray: RaySettings) -> None:
        self._settings = settings
        self._application = ServeApplication(settings, ray)
        self._ensuring = asyncio.Lock()
        self._is_running = False
        self._client = httpx.AsyncClient(
            base_url=settings.url,
            headers={"authorization": f"Bearer {settings.secret}"},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=5.0),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    async def ensure(self) -> None:
        """Make sure that the model server runs; asked for nothing after that, until a request finds it gone."""
        if not self._settings.secret:
            raise ModelServerError("this service serves no models: its operator has to set IBLLM_SERVE_SECRET")
        async with self._ensuring:
            if not self._is_running:
                await self._application.ensure()
                self._is_running = True

    async def complete(self, request: ChatRequest, served: ServedModel) -> dict[str, Any] | AsyncIterable[bytes]:
        """The answer as JSON, or, where the request asks for a stream, as server-sent events.

        Cancelling stops the answer in the model server, and so does leaving the events.
        """
        if not request.stream:
            async with self._asked(request, served) as response:
                answer: dict[str, Any] = response.json()
                return answer
        events = EventStream(self._asked(request, served))
        await events.begin(PATIENCE_SECONDS)
        return events

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _asked(self, request: ChatRequest, served: ServedModel) -> AsyncIterator[httpx.Response]:
        """The response to a request: of a stream as it comes, of any other one read; refusals are raised."""
        try:
            response = await self._sent(request, served)
            try:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response.status_code, await response.aread(), response.headers)
                if not request.stream:
                    await response.aread()
                yield response
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise ModelServerError(
                f"the model server went away ({str(error) or type(error).__name__}): ask again in a moment"
            ) from error

    async def _sent(self, request: ChatRequest, served: ServedModel) -> httpx.Response:
        """Send a request; where nobody is there, or not our application, see to it once."""
        for attempt in range(TRIES):
            await self.ensure()
            try:
                response = await self._client.send(self._built(request, served), stream=True)
            except httpx.ConnectError:
                if attempt == TRIES - 1:
                    raise
            else:
                if attempt == TRIES - 1 or not await _is_unknown_route(response):
                    return response
            self._is_running = False
        raise AssertionError("the last try returns or raises")

    def _built(self, request: ChatRequest, served: ServedModel) -> httpx.Request:
        adapter = ServedAdapter(base=served.base, encoder=served.encoder, adapter=served.adapter)
        return self._client.build_request(
            "POST",
            ROUTE,
            content=request.model_dump_json(exclude_none=True),
            headers={MODEL_HEADER: adapter.key, "content-type": "application/json"},
        )


async def _is_unknown_route(response: httpx.Response) -> bool:
    """Whether Serve itself answers that there is nothing here: our own answers are JSON."""
    is_unknown = response.status_code == httpx.codes.NOT_FOUND and not _is_json(response.headers)
    if is_unknown:
        await response.aclose()
    return is_unknown


def _refusal(status: int, body: bytes, headers: httpx.Headers) -> ServiceError:
    if _is_json(headers):
        return PassedOnError(status, httpx.Response(status, content=body).json()["error"], dict(headers))
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        return ModelServerBusyError(
            "all of the model server's replicas are busy: ask again in a moment", retry_after=BUSY_SECONDS
        )
    return ServiceError(
        f"the model server failed ({status}): see the replica's log in Ray's dashboard", code="model_server_failed"
    )


def _is_json(headers: httpx.Headers) -> bool:
    return str(headers.get("content-type", "")).startswith("application/json")
