"""Bodies that are too large or never end: refused as early as can be, strangers' before anything is read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.api import limits
from tests.orchestrator.api.raw import head, send_raw
from tests.orchestrator.api.refusals import JOBS, JSON, nothing_written, refused
from tests.orchestrator.api.service import Live, Service

PIECE = 1 << 16
HALF_GIGABYTE = 512 << 20


@pytest.fixture(autouse=True)
def nothing_is_written(database: str) -> Iterator[None]:
    with nothing_written(database):
        yield


@pytest.mark.parametrize("is_chunked", [False, True])
def test_twenty_megabytes_of_json_are_refused(service: Service, is_chunked: bool) -> None:
    taken: list[int] = []

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            taken.append(1 << 20)
            yield b" " * (1 << 20)

    body: Any = pieces() if is_chunked else b" " * (20 << 20)
    answer = service.http.post(JOBS, content=body, headers=JSON)
    assert "more than 1 MB: send data as a file, POST /v1/files" in refused(answer, 413, code="payload_too_large")


def test_of_a_body_that_is_too_large_no_more_is_taken_than_shows_it(service: Service) -> None:
    taken = _taken_of(service, "/v1/fine_tuning/jobs", dict(JSON), size=20 << 20)
    assert taken.status == 413
    assert taken.num_bytes <= limits.MAX_JSON_BYTES + PIECE


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)


@pytest.mark.usefixtures("hasty")
def test_a_client_that_stops_in_the_middle_of_json_is_told(live: Live) -> None:
    sent = head("POST", JOBS, content_type="application/json", content_length="100") + b'{"model": '
    told = refused(send_raw(live, sent), 408, code="request_timeout")
    assert told.endswith("send it again")


@pytest.mark.usefixtures("hasty")
def test_a_client_that_stops_in_the_middle_of_a_file_is_told(live: Live) -> None:
    begin = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"mess'
    sent = head("POST", "/v1/files", content_type="multipart/form-data; boundary=b", content_length="1000") + begin
    assert refused(send_raw(live, sent), 408, code="request_timeout").endswith("send it again")


class _Taken:
    """How the application answered, and how much of the body it asked for before."""

    status = 0
    num_bytes = 0


def _taken_of(service: Service, path: str, headers: dict[str, str], *, size: int) -> _Taken:
    """Send a body without end to the application itself, which is counted as it is taken."""
    taken = _Taken()

    async def receive() -> dict[str, Any]:
        taken.num_bytes += PIECE
        return {"type": "http.request", "body": b" " * PIECE, "more_body": taken.num_bytes < size}

    async def send(message: Any) -> None:
        taken.status = message.get("status", taken.status)

    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": lines, "client": None}
    asyncio.run(service.app(scope, receive, send))
    return taken


@pytest.mark.parametrize("path", ["/v1/files", "/v1/uploads/upload-none/parts", "/v1/chat/completions"])
@pytest.mark.parametrize("key", ["", "Bearer sk-ib-wrong"])
def test_of_a_strangers_file_nothing_is_read(service: Service, path: str, key: str) -> None:
    kind = "application/json" if "chat" in path else "multipart/form-data; boundary=b"
    headers = {"content-type": kind, "authorization": key, "content-length": str(HALF_GIGABYTE)}
    taken = _taken_of(service, path, headers, size=HALF_GIGABYTE)
    assert (taken.status, taken.num_bytes) == (401, 0)


def test_a_file_that_announces_more_than_there_may_be_is_refused_unread(live: Live) -> None:
    kind = {"content_type": "multipart/form-data; boundary=b", "content_length": str(10 * HALF_GIGABYTE)}
    told = refused(send_raw(live, head("POST", "/v1/files", **kind)), 413, code="payload_too_large")
    assert told.startswith("the body has more than 513 MB")
