"""Requests that no client library sends: byte by byte over a socket."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.orchestrator.api.service import API_KEY, WAIT_SECONDS, Live


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def status_code(self) -> int:
        return self.status

    def json(self) -> Any:
        return json.loads(self.body)


def send_raw(live: Live, sent: bytes) -> RawAnswer:
    """The answer to bytes, after which nothing more is sent while the connection stays open."""
    address = urlsplit(live.base_url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT_SECONDS) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            headers: dict[str, str] = {}
            while line := stream.readline().strip():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            return RawAnswer(status, headers, stream.read(int(headers["content-length"])))


def head(method: str, path: str, *, key: str = API_KEY, **headers: str) -> bytes:
    """The beginning of a request; underscores in names of headers become dashes."""
    lines = [f"{method} {path} HTTP/1.1", "host: test", f"authorization: Bearer {key}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
