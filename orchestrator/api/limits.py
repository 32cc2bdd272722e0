"""What stands before every route: a request id, and limits on bodies. Plain ASGI, since each request pays for it.

Bodies of forms are files and stream to the disk; every other body is JSON, is read whole, and so has to be small.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.errors import NO_TEXT, error_response
from orchestrator.errors import (
    InvalidRequestError,
    MediaTypeError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ServiceError,
)
from orchestrator.ids import new_id

MAX_JSON_BYTES = 1 << 20
MAX_DEPTH = 32  # of brackets in JSON; the contract needs six
MAX_CONTAINERS = 100_000
IN_THREAD_BYTES = 1 << 16  # a body that takes longer to parse than other requests should wait
BODY_SECONDS = 60.0  # between two pieces of a body
METHODS_WITH_BODY = ("POST", "PUT", "PATCH")
LARGE_JSON_PATHS = {"/v1/chat/completions": 64 << 20}  # pictures travel inside


class Limits:
    """Middleware around the application.

    ``check_key`` raises for headers without a good key: what a stranger sends is refused before it is read, where it
    may be large.
    """

    def __init__(self, app: ASGIApp, *, max_form_bytes: int, check_key: Callable[[Headers], None]) -> None:
        self._app = app
        self._max_form_bytes = max_form_bytes
        self._check_key = check_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is within the limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            receive = await self._checked(scope, receive)
        except ServiceError as error:
            await error_response(error)(scope, receive, send_with_id)
            return
        await self._app(scope, receive, send_with_id)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        if scope["method"] not in METHODS_WITH_BODY:
            return receive
        headers = Headers(scope=scope)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type == "multipart/form-data":
            await run_in_threadpool(self._check_key, headers)
            _check_length(headers, self._max_form_bytes)
            return _limited(_patient(receive), self._max_form_bytes)
        limit = LARGE_JSON_PATHS.get(scope["path"], MAX_JSON_BYTES)
        if limit > MAX_JSON_BYTES:
            await run_in_threadpool(self._check_key, headers)
        _check_length(headers, limit)
        body = await _read(_limited(_patient(receive), limit))
        if body:
            if content_type != "application/json":
                raise MediaTypeError(
                    f"the body is {content_type or 'of no type'}: send JSON with the header "
                    "Content-Type: application/json, or a file as multipart/form-data"
                )
            if len(body) > IN_THREAD_BYTES:
                await run_in_threadpool(_check_json, body)
            else:
                _check_json(body)
        return _replay(body, receive)


def _patient(receive: Receive) -> Receive:
    async def within_time() -> Message:
        try:
            return await asyncio.wait_for(receive(), BODY_SECONDS)
        except TimeoutError as error:
            raise RequestTimeoutError(f"no more of the body came within {BODY_SECONDS:.0f} s: send it again") from error

    return within_time


def _check_length(headers: Headers, limit: int) -> None:
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)


def _limited(receive: Receive, limit: int) -> Receive:
    size = 0

    async def within_size() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        return message

    return within_size


async def _read(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    more = True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(pieces)


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the body has more than {limit >> 20} MB: send data as a file, POST /v1/files")


def _check_json(body: bytes) -> None:
    """Refuse what later readers stumble over: too deep, too many brackets, numbers without end, no UTF-8, NaN."""
    if body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        raise InvalidRequestError(f"the body has more than {MAX_CONTAINERS} lists and objects: send data as a file")
    try:
        value = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_unique)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise InvalidRequestError(f"the body is no JSON: {str(error)[:200]}", code="invalid_json") from error
    may_be_no_text = b"\\u" in body
    level = [value]
    for _ in range(MAX_DEPTH):
        if may_be_no_text and not all(_is_text(item) for item in level if isinstance(item, str)):
            raise InvalidRequestError(NO_TEXT)
        level = [child for item in level if isinstance(item, list | dict) for child in _children(item)]
        if not level:
            return
    raise _too_deep()


def _children(item: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return chain(item.keys(), item.values()) if isinstance(item, dict) else item


def _is_text(text: str) -> bool:
    """Whether a database takes it: JSON can spell NUL, and half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _too_deep() -> InvalidRequestError:
    return InvalidRequestError(f"the body nests deeper than {MAX_DEPTH} levels: flatten it")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; readers disagree on which of two values of one name counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it says {name[:64]!r} twice: leave one of them out")
    return found


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read to whoever reads it next; afterwards what the client does."""
    told = False

    async def once() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once
