"""A real web server on the loopback address, with every way a server may misbehave."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

PICTURE = b"\x89PNG" + bytes(range(256)) * 300


@dataclass
class WebServer:
    """``requests`` counts paths, ``headers`` are those of the last request."""

    port: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextmanager
def running_server(certificate: Path | None = None) -> Iterator[WebServer]:
    """Serve until the block ends; over TLS with a file that holds certificate and key."""
    state = WebServer()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(state: WebServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            state.requests[path] += 1
            state.headers = dict(self.headers)
            getattr(self, f"answer_{path.strip('/')}")(query)

        def answer_picture(self, _query: str) -> None:
            self.answer(200, PICTURE)

        def answer_status(self, query: str) -> None:
            self.answer(int(query.partition("&")[0]), b"no")

        def answer_tired(self, _query: str) -> None:
            """Well again at the third request."""
            ill = state.requests["/tired"] < 3
            self.answer(503 if ill else 200, b"tired" if ill else PICTURE)

        def answer_redirect(self, query: str) -> None:
            self.answer(302, b"", {"Location": unquote(query)})

        def answer_hops(self, query: str) -> None:
            left = int(query)
            self.answer(302, b"", {"Location": f"/hops?{left - 1}" if left else "/picture"})

        def answer_unsized(self, query: str) -> None:
            """A body without a length."""
            self.answer(200, b"x" * int(query), length=None)

        def answer_chunked(self, query: str) -> None:
            self.protocol_version = "HTTP/1.1"
            self.answer(200, b"", {"Transfer-Encoding": "chunked", "Connection": "close"}, length=None)
            for _ in range(int(query) // 1000):
                self.wfile.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        def answer_torn(self, _query: str) -> None:
            self.answer(200, b"half", length=1000)

        def answer_zipped(self, _query: str) -> None:
            self.answer(200, b"zipped", {"Content-Encoding": "gzip"})

        def answer_dripping(self, query: str) -> None:
            """A byte now and then, for ever: in the headers, or in a body with or without a length."""
            if query != "headers":
                self.answer(200, b"", length=10**6 if query == "sized" else None)
            while not state.stopped.wait(0.05):
                self.wfile.write(b"x")
                self.wfile.flush()

        def answer_silent(self, _query: str) -> None:
            state.stopped.wait()

        def answer(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = -1
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if length is not None:
                self.send_header("Content-Length", str(len(body) if length == -1 else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Tests are quiet."""

    return Handler
