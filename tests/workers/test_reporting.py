import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import DataSettings, Resources
from ibllm_core.contract.run_spec import CompileSpec, Outcome, Progress
from ibllm_core.contract.states import TerminationReason
from workers.reporting import Reporter


class Service:
    """A real HTTP server that remembers what it was told, and can be away for some requests."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, object], str]] = []
        self.away_for = 0
        self.got_outcome = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if service.away_for:
                    service.away_for -= 1
                    self.send_response(503)
                else:
                    service.heard.append((self.path, body, self.headers["authorization"]))
                    self.send_response(204)
                self.end_headers()
                if self.path.endswith("/outcome"):
                    service.got_outcome.set()

            def log_message(self, *_args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def paths(self) -> list[str]:
        return [path.rsplit("/", 1)[1] for path, _, _ in self.heard]


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    threading.Thread(target=running.server.serve_forever, daemon=True).start()
    yield running
    running.server.shutdown()


def spec(service: Service) -> CompileSpec:
    return CompileSpec(
        job_id="job",
        run_id="run",
        attempt_id="attempt",
        attempt_number=1,
        service_url=service.url,
        token="secret",
        base="b",
        encoder="e",
        adapter=AdapterConfig(),
        seed=0,
        resources=Resources(),
        data=DataSettings(),
        inputs=(),
    )


def test_everything_said_arrives_with_the_attempts_token(service: Service) -> None:
    with Reporter(spec(service)) as reporter:
        reporter.progress(Progress(phase="training", step=3))
        reporter.event("hello", level="warn", data={"n": 1})
        reporter.outcome(Outcome(reason=TerminationReason.SUCCEEDED))
    assert sorted(set(service.paths())) == ["events", "outcome", "progress"]
    assert {token for _, _, token in service.heard} == {"Bearer secret"}


def test_an_outage_loses_neither_events_nor_the_outcome(service: Service) -> None:
    service.away_for = 3
    with Reporter(spec(service)) as reporter:
        reporter.event("first")
        reporter.event("second")
        reporter.outcome(Outcome(reason=TerminationReason.SUCCEEDED))
    said = [body["message"] for path, body, _ in service.heard if path.endswith("/events")]
    assert said == ["first", "second"]
    assert "outcome" in service.paths()
