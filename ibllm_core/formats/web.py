"""Downloads of addresses that a stranger wrote into a dataset, and posts to those that a stranger named.

A name is resolved once, its addresses are judged, and the connection goes to a judged address, so that a second answer
of the name service changes nothing. Redirects are followed by hand and judged again. Neither proxies nor credentials
are taken from the environment.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.response import BaseHTTPResponse
from urllib3.util import parse_url

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.addresses import check_literal, resolve
from ibllm_core.formats.names import shown, too_large

PORTS = {"http": 80, "https": 443}
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
TRIES = 3
PAUSE = 0.1  # seconds before the second try, twice as much before the third
CONNECT_SECONDS = 10.0  # of each address of a host
CHUNK = 1 << 16
HEADERS = {"User-Agent": "ibllm", "Accept": "*/*", "Accept-Encoding": "identity"}


def download(url: str, *, allow_private: bool, max_bytes: int, timeout: float) -> bytes:
    """The body at an ``http`` or ``https`` address, within ``timeout`` seconds for everything but the name service.

    ``InvalidDataError`` says why there is none: a private address, another status than 200, too large, too slow.
    """
    deadline = time.monotonic() + timeout
    for _ in range(MAX_REDIRECTS + 1):
        target = parse(url, allow_private=allow_private)
        try:
            answer = _with_tries(target, _Limits(allow_private=allow_private, max_bytes=max_bytes, deadline=deadline))
        except TimeoutError as error:
            raise InvalidDataError(
                f"{target.shown} took longer than {timeout:g} seconds: leave the row out, or copy the file to s3://"
            ) from error
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer.location)
    raise InvalidDataError(f"{target.shown} is the end of more than {MAX_REDIRECTS} redirects: write the final address")


def post(target: Target, addresses: list[str], body: bytes, headers: dict[str, str], *, timeout: float) -> int:
    """Send ``body`` to one of the host's ``addresses``, which the caller has judged; the status of the answer.

    The answer's body is not read, no redirect is followed and nothing is tried twice. ``OSError`` where there is no
    answer within ``timeout`` seconds.
    """
    limits = _Limits(allow_private=True, max_bytes=0, deadline=time.monotonic() + timeout)
    try:
        with _connected(target, addresses, limits) as connection:
            sent = {"User-Agent": HEADERS["User-Agent"], "Host": _host(target), **headers}
            connection.request("POST", target.path, body, sent, preload_content=False)
            return connection.getresponse().status
    except (OSError, HTTPError, http.client.HTTPException) as error:
        limits.seconds_left()  # whatever the watchdog broke is a timeout
        raise ConnectionError(str(error) or type(error).__name__) from error


@dataclass(frozen=True, kw_only=True)
class Target:
    """The parts of an address; ``shown`` leaves out the query, which may hold a signature."""

    scheme: str
    host: str
    port: int
    path: str
    shown: str


def parse(url: str, *, allow_private: bool) -> Target:
    """Take an address apart; ``InvalidDataError`` for other schemes, other ports, and names with passwords."""
    try:
        parts = parse_url(url)
    except (LocationParseError, ValueError) as error:
        raise InvalidDataError(f"{shown(url)} is not an address: write http://host/path") from error
    if parts.scheme not in PORTS or not parts.host:
        raise InvalidDataError(f"{shown(url)} cannot be fetched: only http:// and https:// addresses can")
    name = shown(f"{parts.scheme}://{parts.netloc}{parts.path or ''}")
    if parts.auth:
        raise InvalidDataError(f"an address at {parts.host} holds a user's name: write it without, or use a signed one")
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    if port not in PORTS.values() and not allow_private:
        raise InvalidDataError(f"{name} is at port {port}: only ports 80 and 443 are fetched from")
    host = parts.host.strip("[]")
    if not allow_private:
        check_literal(host)
    return Target(scheme=parts.scheme, host=host, port=port, path=parts.request_uri or "/", shown=name)


@dataclass(frozen=True, kw_only=True)
class _Limits:
    allow_private: bool
    max_bytes: int
    deadline: float

    def seconds_left(self) -> float:
        """``TimeoutError`` where there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True)
class _Redirect:
    location: str


class _TryAgainError(Exception):
    """The server is not well; it may be in a moment."""


def _with_tries(target: Target, limits: _Limits) -> bytes | _Redirect:
    addresses: list[str] = []
    for number in range(TRIES):
        try:
            addresses = addresses or resolve(target.host, target.port, allow_private=limits.allow_private)
            return _request(target, addresses, limits)
        except (_TryAgainError, OSError, HTTPError, http.client.HTTPException) as error:
            limits.seconds_left()  # whatever the watchdog broke is a timeout
            if number == TRIES - 1:
                raise InvalidDataError(
                    f"{target.shown} cannot be fetched ({str(error) or type(error).__name__}): check the address, or "
                    "leave the row out"
                ) from error
            time.sleep(min(PAUSE * 2**number, limits.seconds_left()))
    raise AssertionError("the last try returns or raises")


def _request(target: Target, addresses: list[str], limits: _Limits) -> bytes | _Redirect:
    with _connected(target, addresses, limits) as connection:
        connection.request(
            "GET", target.path, headers={**HEADERS, "Host": _host(target)}, preload_content=False, decode_content=False
        )
        response = connection.getresponse()
        if response.status in REDIRECTS and "location" in response.headers:
            return _Redirect(response.headers["location"])
        if response.status >= 500 or response.status == http.HTTPStatus.TOO_MANY_REQUESTS:
            raise _TryAgainError(f"status {response.status}")
        if response.status != http.HTTPStatus.OK:
            raise InvalidDataError(
                f"{target.shown} answers with status {response.status}: check the address, or leave the row out"
            )
        return _body(response, target, limits)


def _host(target: Target) -> str:
    """The header of that name: a connection knows an address only."""
    port = "" if target.port == PORTS[target.scheme] else f":{target.port}"
    return (f"[{target.host}]" if ":" in target.host else target.host) + port


def _body(response: BaseHTTPResponse, target: Target, limits: _Limits) -> bytes:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise InvalidDataError(f"{target.shown} is sent as {encoding}, though asked for plain: copy the file to s3://")
    stated = response.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.max_bytes:
        raise too_large(target.shown, limits.max_bytes, int(stated))
    body = bytearray()
    while chunk := response.read1(CHUNK):
        body += chunk
        if len(body) > limits.max_bytes:  # whatever the header said
            raise too_large(target.shown, limits.max_bytes)
    limits.seconds_left()  # a body without a length ends where the watchdog cuts it
    return bytes(body)


@contextmanager
def _connected(target: Target, addresses: list[str], limits: _Limits) -> Iterator[HTTPConnection]:
    """A connection that a watchdog cuts at the deadline: a timeout of the socket alone begins anew with each byte."""
    connection = _connect(target, addresses, limits)
    watchdog = threading.Timer(limits.seconds_left(), _cut, [connection.sock])
    watchdog.daemon = True
    watchdog.start()
    try:
        yield connection
    finally:
        watchdog.cancel()
        connection.close()


def _connect(target: Target, addresses: list[str], limits: _Limits) -> HTTPConnection:
    """The first address that answers."""
    failure: OSError | HTTPError | None = None
    for address in addresses:
        timeout = min(CONNECT_SECONDS, limits.seconds_left())
        connection = (
            HTTPConnection(address, target.port, timeout=timeout)
            if target.scheme == "http"
            else HTTPSConnection(address, target.port, timeout=timeout, server_hostname=target.host)
        )
        try:
            connection.connect()
        except (OSError, HTTPError) as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure or OSError("the host has no address")


def _cut(connected: socket.socket) -> None:
    try:
        # The method of the plain socket: an SSLSocket's own would take its state from under the reader.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
    except OSError:  # closed meanwhile
        return
