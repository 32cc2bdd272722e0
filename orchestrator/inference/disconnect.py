"""Work for a client that may go away meanwhile: a web framework notices it, and tells only who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from orchestrator.errors import ServiceError

Result = TypeVar("Result")


class ClientGoneError(ServiceError):
    """Nobody reads the answer any more."""

    status = 499
    type = "invalid_request_error"
    code = "client_gone"


async def while_connected(http: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The work's result; it is cancelled, with ``ClientGoneError``, when the client of a request goes away.

    The request's body has to be read already.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("the client went away")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
