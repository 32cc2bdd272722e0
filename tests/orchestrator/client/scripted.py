"""A server on a real socket that answers as it is told, in turn: for what the service does only on bad days."""

from __future__ import annotations

import http.server
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``status`` 0 breaks the connection; ``breaks_after`` cuts it off behind the body."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks_after: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    """The last answer is given again and again."""

    port: int = 0
    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def will_answer(self, *answers: Answer) -> None:
        self.answers = list(answers)


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(
        status=status, body=json.dumps(value).encode(), headers={"content-type": "application/json", **headers}
    )


def refusal(status: int, message: str = "no", **headers: str) -> Answer:
    error = {"message": message, "type": "t", "param": "model", "code": "a_code"}
    return as_json({"error": error}, status, **{"x-request-id": "req-1"}, **headers)


def as_events(*events: str, breaks_after: bool = False) -> Answer:
    body = "".join(events).encode()
    return Answer(body=body, headers={"content-type": "text/event-stream"}, breaks_after=breaks_after)


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    state = ScriptedServer()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(state: ScriptedServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            state.requests.append(Request(self.command, self.path, dict(self.headers), body))
            answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            if answer.status:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body) + answer.breaks_after))
                self.end_headers()
                self.wfile.write(answer.body)
                self.wfile.flush()
            if answer.breaks_after or not answer.status:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    return Handler
