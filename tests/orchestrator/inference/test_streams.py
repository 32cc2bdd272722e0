"""Events on their way to a client, from a small model server of our own over real HTTP."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from ibllm_core.contract.chat_answer import DONE
from orchestrator.errors import ServiceError
from orchestrator.inference import streams
from orchestrator.inference.errors import PassedOnError
from orchestrator.inference.streams import KEEP_ALIVE, EventStream

pytestmark = pytest.mark.anyio
FIRST = b'data: {"choices":[]}\n\n'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Upstream:
    """A response whose chunks the test lets go, one by one."""

    def __init__(self, *chunks: bytes) -> None:
        self.may_begin, self.is_closed = asyncio.Event(), asyncio.Event()
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        for chunk in chunks:
            self.chunks.put_nowait(chunk)
        self.refusal: ServiceError | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[httpx.Response]:
        try:
            await self.may_begin.wait()
            if self.refusal:
                raise self.refusal
            yield httpx.Response(200, content=self._body())
        finally:
            self.is_closed.set()

    async def _body(self) -> AsyncIterator[bytes]:
        while (chunk := await self.chunks.get()) is not None:
            yield chunk


async def collected(stream: EventStream) -> list[bytes]:
    return [chunk async for chunk in stream]


async def test_a_stream_that_began_is_passed_on_as_it_is() -> None:
    upstream = Upstream(FIRST, DONE)
    upstream.chunks.put_nowait(None)
    upstream.may_begin.set()
    stream = EventStream(upstream.opened())
    await stream.begin(5)
    assert await collected(stream) == [FIRST, DONE]


async def test_a_refusal_in_time_has_its_own_status() -> None:
    upstream = Upstream()
    upstream.refusal = PassedOnError(400, {"message": "a bad picture"}, {})
    upstream.may_begin.set()
    with pytest.raises(PassedOnError, match="a bad picture"):
        await EventStream(upstream.opened()).begin(5)


async def test_a_late_refusal_is_the_last_event() -> None:
    upstream = Upstream()
    upstream.refusal = PassedOnError(400, {"message": "a bad picture", "type": "t", "code": "c"}, {})
    stream = EventStream(upstream.opened())
    await stream.begin(0)
    upstream.may_begin.set()
    chunks = await collected(stream)
    assert chunks == [KEEP_ALIVE, b'data: {"error":{"message":"a bad picture","type":"t","param":null,"code":"c"}}\n\n']


async def test_comments_fill_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.01)
    upstream = Upstream(FIRST, DONE)
    upstream.chunks.put_nowait(None)
    stream = EventStream(upstream.opened())
    await stream.begin(0)
    events = aiter(stream)
    assert [await anext(events) for _ in range(3)] == [KEEP_ALIVE] * 3
    upstream.may_begin.set()
    rest = [chunk async for chunk in events if chunk != KEEP_ALIVE]
    assert rest == [FIRST, DONE]


async def test_an_answer_that_breaks_off_says_so() -> None:
    upstream = Upstream(FIRST)
    upstream.chunks.put_nowait(None)
    upstream.may_begin.set()
    stream = EventStream(upstream.opened())
    assert b"the answer broke off" in (await collected(stream))[-1]


async def test_leaving_closes_the_response() -> None:
    upstream = Upstream(FIRST)
    upstream.may_begin.set()
    stream = EventStream(upstream.opened())
    await stream.begin(5)
    events = aiter(stream)
    assert await anext(events) == FIRST
    await events.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(upstream.is_closed.wait(), 5)


async def test_a_stream_that_nobody_takes_up_is_closed_too() -> None:
    upstream = Upstream(FIRST)
    upstream.may_begin.set()
    stream = EventStream(upstream.opened())
    await stream.begin(5)
    del stream
    gc.collect()
    await asyncio.wait_for(upstream.is_closed.wait(), 5)
