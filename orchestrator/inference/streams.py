"""Events that go on coming while nothing is said: a client, or what stands before it, would else give up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import httpx

from ibllm_core.contract.chat_answer import DONE, error_body, error_event
from orchestrator.errors import ServiceError
from orchestrator.inference.errors import ModelServerError

KEEP_ALIVE_SECONDS = 10.0
KEEP_ALIVE = b": loading\n\n"  # a comment, which clients skip
WAITING_CHUNKS = 64  # a client that reads slowly slows the model server, and does not fill this process
ERROR = b'data: {"error"'
TAIL_BYTES = 4096
log = logging.getLogger(__name__)


class EventStream:
    """The events of a response that may be long in coming, with comments while there are none.

    What goes wrong on the way becomes the last event. The response is closed when the iteration ends, or when nobody
    holds the stream any more: a client may go before anything was asked for.
    """

    def __init__(self, opening: AbstractAsyncContextManager[httpx.Response]) -> None:
        self._begun: asyncio.Future[ServiceError | None] = asyncio.get_running_loop().create_future()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_CHUNKS)
        self._pump = asyncio.ensure_future(_pump(opening, self._begun, self._chunks))

    def __del__(self) -> None:
        self._pump.cancel()

    async def begin(self, patience: float) -> None:
        """Wait so many seconds for the response, and raise where it is a refusal: it can have its own status yet."""
        await asyncio.wait({self._begun}, timeout=patience)
        if self._begun.done() and (refusal := self._begun.result()):
            raise refusal

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if not self._begun.done():
                yield KEEP_ALIVE
            while True:
                try:
                    chunk = await asyncio.wait_for(self._chunks.get(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    chunk = KEEP_ALIVE
                if chunk is None:
                    return
                yield chunk
        finally:
            self._pump.cancel()


async def _pump(
    opening: AbstractAsyncContextManager[httpx.Response],
    begun: asyncio.Future[ServiceError | None],
    chunks: asyncio.Queue[bytes | None],
) -> None:
    tail = b""
    try:
        async with opening as response:
            begun.set_result(None)
            async for chunk in response.aiter_raw():
                tail = (tail + chunk)[-TAIL_BYTES:]
                await chunks.put(chunk)
        if not (tail.endswith(DONE) or ERROR in tail):
            raise ModelServerError("the answer broke off: ask again")
    except Exception as found:
        if not isinstance(found, ServiceError):
            log.exception("the model server's answer cannot be passed on")
        error = found if isinstance(found, ServiceError) else ModelServerError("the answer broke off: ask again")
        if not begun.done():
            begun.set_result(error)
        body = error_body(error.message, type=error.type, code=error.code, param=error.param)
        await chunks.put(error_event(body))
    await chunks.put(None)
