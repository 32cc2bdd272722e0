"""What stands for Ray's dashboard: jobs that print, and a Ray that can go away. The real one is met end to end."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeRay:
    """``asked`` counts how often each job's log was asked for."""

    def __init__(self) -> None:
        self._logs: dict[str, str] = {}
        self._is_away = False
        self.url = ""
        self.asked: Counter[str] = Counter()

    def prints(self, submission_id: str, text: str) -> None:
        self._logs[submission_id] = self._logs.get(submission_id, "") + text

    def goes_away(self) -> None:
        self._is_away = True

    def answer(self, path: str) -> tuple[int, bytes]:
        submission_id = path.removeprefix("/api/jobs/").removesuffix("/logs")
        self.asked[submission_id] += 1
        if self._is_away:
            return 503, b"away"
        if submission_id not in self._logs:
            return 404, b"no such job"
        return 200, json.dumps({"logs": self._logs[submission_id]}).encode()


@contextmanager
def fake_ray() -> Iterator[FakeRay]:
    ray = FakeRay()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = ray.answer(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ray.url = f"http://127.0.0.1:{server.server_port}"
        yield ray
        server.shutdown()
