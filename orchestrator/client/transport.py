"""HTTP to one service: keys, retries, errors, pages; what all resources of the client have in common."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from ibllm_core.contract.api.common import Page
from orchestrator.client.errors import ClientError, NotReachableError, UnexpectedAnswerError, error_of
from orchestrator.client.parsing import parse
from orchestrator.client.retry import Failure, wait_before_retry

Shape = TypeVar("Shape", bound=BaseModel)
Body = BaseModel | Mapping[str, Any]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CONNECT_SECONDS = 5.0
PAGE_SIZE = 100
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Transport:
    """``/v1`` of one service. Safe for threads."""

    def __init__(self, base_url: str, api_key: str, *, project: str | None, timeout: float, max_retries: int) -> None:
        self.url, host = _checked_url(base_url)
        self._max_retries = max_retries
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {_ascii(api_key, 'the API key')}"}
            | ({"openai-project": _ascii(project, "the project")} if project else {}),
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            trust_env=host not in LOOPBACK,  # no proxy leads to this machine
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        shape: type[Shape],
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Body | None = None,
        is_repeatable: bool = False,
        **options: Any,
    ) -> Shape:
        """Send a request, and return its answer as ``shape``. A ``GET`` is repeatable by itself."""
        request = partial(self._request, method, path, query=query, body=body, **options)
        response = self._send(request, is_repeatable=is_repeatable or method == "GET", is_streamed=False)
        try:
            data = response.json()
        except ValueError as error:
            raise UnexpectedAnswerError(
                f"{response.url} did not answer with JSON: is {self.url} the address of an ibllm service?"
            ) from error
        return parse(shape, data)

    def pages(
        self, shape: type[Shape], path: str, *, limit: int | None = None, query: Mapping[str, Any] | None = None
    ) -> Iterator[Shape]:
        """The items of a list, page by page as they are asked for; at most ``limit`` of them."""
        return islice(self._all(shape, path, min(limit or PAGE_SIZE, PAGE_SIZE), query or {}), limit)

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """A successful answer whose body is still to be read; what breaks off in it is ``NotReachableError``."""
        response = self._send(partial(self._request, method, path, **options), is_repeatable=True, is_streamed=True)
        try:
            yield response
        except httpx.HTTPError as error:
            raise self._not_reachable(error) from error
        finally:
            response.close()

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout: float | None = None,
        **form: Any,
    ) -> httpx.Request:
        content = None if body is None else _encoded(body)
        kind = {} if content is None else {"content-type": "application/json"}
        read = self._timeout if read_timeout is None else read_timeout
        return self._http.build_request(
            method,
            path,
            params=query,
            headers={**kind, **(headers or {})},
            timeout=httpx.Timeout(self._timeout, connect=CONNECT_SECONDS, read=read),
            content=content,
            **form,
        )

    def _send(self, request: Callable[[], httpx.Request], *, is_repeatable: bool, is_streamed: bool) -> httpx.Response:
        """A successful answer, of this or of a later try, each of which is a request made anew."""
        for tries in count(1):
            error: ClientError
            try:
                response = self._http.send(request(), stream=is_streamed)
                if response.is_success:
                    return response
                response.read()
                failure = Failure(status=response.status_code, headers=response.headers)
                error = error_of(response)
            except httpx.HTTPError as cause:
                failure = Failure(status=None, was_sent=not isinstance(cause, NEVER_SENT))
                error = self._not_reachable(cause)
            wait = wait_before_retry(failure, tries=tries, is_repeatable=is_repeatable)
            if wait is None or tries > self._max_retries:
                raise error
            time.sleep(wait)
        raise AssertionError("counting ended")

    def _all(self, shape: type[Shape], path: str, size: int, query: Mapping[str, Any]) -> Iterator[Shape]:
        cursor: dict[str, str] = {}
        while True:
            page = self.call(Page[dict[str, Any]], "GET", path, query={**query, "limit": size, **cursor})
            yield from (parse(shape, item) for item in page.data)
            if not page.has_more or page.last_id is None:
                return
            cursor = {"after": page.last_id}

    def _not_reachable(self, error: httpx.HTTPError) -> NotReachableError:
        if isinstance(error, NEVER_SENT):
            return NotReachableError(
                f"nothing answers at {self.url} ({error}): check the address, and whether the service is up"
            )
        what = "took too long to answer" if isinstance(error, httpx.TimeoutException) else "broke the connection off"
        return NotReachableError(f"{self.url} {what} ({error or type(error).__name__}): try again in a moment")


def segment(identity: str) -> str:
    """An id as one piece of a path, whatever it holds."""
    if not identity or not identity.strip("."):
        raise ClientError(f"{identity!r} is no id: lists show ids")
    return quote(identity, safe=":")


def _checked_url(base_url: str) -> tuple[str, str]:
    """The address with ``/v1`` at its end, and its host."""
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
    except httpx.InvalidURL as error:
        raise ClientError(f"{base_url!r} is no address ({error}): give one like https://host") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ClientError(f"{base_url!r} is no address of a service: give one like https://host")
    return f"{url}" if url.path.endswith("/v1") else f"{url}/v1".replace("//v1", "/v1"), url.host


def _ascii(value: str, what: str) -> str:
    """Headers carry nothing else, and no line breaks."""
    if not (value.isascii() and value.isprintable() and value.strip()):
        raise ClientError(f"{what} is not made of plain letters and digits: copy it again")
    return value.strip()


def _encoded(body: Body) -> bytes:
    if isinstance(body, BaseModel):
        return body.model_dump_json(exclude_unset=True).encode()
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise ClientError(f"the request cannot be written as JSON ({error}): use plain, finite values") from error
