"""A client that goes away, as uvicorn tells it through a middleware as the service has one."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from fastapi import Body, FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

from orchestrator.inference.disconnect import ClientGoneError, while_connected


@dataclass
class Service:
    url: str = ""
    began: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    refused: threading.Event = field(default_factory=threading.Event)

    async def long_work(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


@pytest.fixture
def service() -> Iterator[Service]:
    made, app = Service(), FastAPI()

    @app.middleware("http")
    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    @app.post("/long")
    async def long(http: Request, body: dict[str, int] = Body()) -> None:  # noqa: B008 (FastAPI's way)
        try:
            await while_connected(http, made.long_work())
        except ClientGoneError:
            made.refused.set()

    @app.post("/short")
    async def short(http: Request, body: dict[str, int] = Body()) -> int:  # noqa: B008
        return await while_connected(http, asyncio.sleep(0, result=body["a"]))

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield made
        server.should_exit = True
        thread.join(10)


def test_work_that_ends_gives_its_result(service: Service) -> None:
    assert httpx.post(f"{service.url}/short", json={"a": 7}).json() == 7


def test_work_is_cancelled_when_its_client_goes(service: Service) -> None:
    with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{service.url}/long", json={}, timeout=httpx.Timeout(5, read=0.2))
    assert service.began.is_set()
    assert service.stopped.wait(5)
    assert service.refused.wait(5)
