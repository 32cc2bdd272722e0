"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx

from orchestrator.client.errors import UnexpectedAnswerError


@dataclass(frozen=True, kw_only=True)
class ServerEvent:
    """One event."""

    id: str | None
    name: str
    data: str


def server_events(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Whole events out of a stream; one that was cut off is left out."""
    fields: dict[str, list[str]] = {}
    for line in _lines(chunks):
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif "data" in fields:
            yield ServerEvent(
                id=fields["id"][-1] if "id" in fields else None,
                name=fields.get("event", ["message"])[-1],
                data="\n".join(fields["data"]),
            )
            fields = {}
        else:  # a comment
            fields = {}


def require_events(response: httpx.Response) -> None:
    """``UnexpectedAnswerError`` for an answer that is no stream of events, such as some proxy's own page."""
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise UnexpectedAnswerError(f"{response.url} did not answer with events: is it an ibllm service?")


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines that have ended. Only line feeds end one: JSON may hold what Python takes for a line's end."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
