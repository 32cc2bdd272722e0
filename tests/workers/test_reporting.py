import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import DataSettings, Resources
from ibllm_core.contract.run_spec import CheckpointReport, CompileSpec, Outcome, Progress
from ibllm_core.contract.states import TerminationReason
from workers import reporting
from workers.reporting import Reporter


class Service:
    """A real HTTP server that remembers what it was told, and can be away for some requests."""

    def __init__(self, port: int = 0) -> None:
        self.heard: list[tuple[str, dict[str, object], str]] = []
        self.away_for = 0
        self.refuses_with = 0
        self.refused = 0
        self.got_outcome = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if service.away_for:
                    service.away_for -= 1
                    self.send_response(503)
                elif service.refuses_with:
                    service.refused += 1
                    self.send_response(service.refuses_with)
                else:
                    service.heard.append((self.path, body, self.headers["authorization"]))
                    self.send_response(204)
                self.end_headers()
                if self.path.endswith("/outcome"):
                    service.got_outcome.set()

            def log_message(self, *_args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
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


def test_each_rank_says_whose_heartbeat_it_is(service: Service) -> None:
    with Reporter(spec(service)) as first, Reporter(spec(service), rank=3) as fourth:
        first.progress(Progress(phase="training", step=3))
        fourth.progress(Progress(phase="training", step=2))
    said = {(body["rank"], body["step"]) for path, body, _ in service.heard if path.endswith("/progress")}
    assert said == {(0, 3), (3, 2)}


def test_events_come_before_the_outcome_after_which_the_service_hears_nothing(service: Service) -> None:
    service.away_for = 2
    with Reporter(spec(service)) as reporter:
        for number in range(20):
            reporter.event(f"event {number}")
        reporter.outcome(Outcome(reason=TerminationReason.SUCCEEDED))
    assert service.paths() == ["events"] * 20 + ["outcome"]


def test_a_long_outage_keeps_the_newest_events_and_says_how_many_are_gone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MAX_EVENTS", 3)
    reporter = Reporter(spec(service))
    for number in range(10):
        reporter.event(f"event {number}")
    with reporter:
        pass
    said = [body["message"] for path, body, _ in service.heard if path.endswith("/events")]
    assert said == ["7 events were dropped while the service was away", "event 7", "event 8", "event 9"]


def test_checkpoints_keep_their_place_among_the_events_through_an_outage(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "RETRY_SECONDS", 0.05)
    service.away_for = 2
    with Reporter(spec(service)) as reporter:
        reporter.event("before")
        reporter.checkpoint(checkpoint(7))
        reporter.metrics("Step 8/9: training loss=2.31", {"step": 8, "train_loss": 2.31})
        reporter.outcome(Outcome(reason=TerminationReason.SUCCEEDED))
    assert service.paths() == ["events", "checkpoints", "events", "outcome"]
    (first, told, second, _) = [body for _, body, _ in service.heard]
    assert (first["type"], second["type"], second["data"]) == ("message", "metrics", {"step": 8, "train_loss": 2.31})
    assert told == {"step": 7, "prefix": "p/7", "metrics": {"step": 7.0, "train_loss": 2.5}, "kept": [6, 7]}


def test_an_outage_drops_no_checkpoint(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "MAX_EVENTS", 1)
    reporter = Reporter(spec(service))
    for step in range(3):
        reporter.checkpoint(checkpoint(step))
        reporter.event(f"event {step}")
    with reporter:
        pass
    said = [body.get("step", body.get("message")) for _, body, _ in service.heard]
    assert said == ["2 events were dropped while the service was away", 0, 1, 2, "event 2"]


def checkpoint(step: int) -> CheckpointReport:
    metrics = {"step": step, "train_loss": 2.5}
    return CheckpointReport(step=step, prefix=f"p/{step}", metrics=metrics, kept=(step - 1, step))


def test_an_attempt_that_has_ended_falls_silent(service: Service) -> None:
    service.refuses_with = 409
    with Reporter(spec(service)) as reporter:
        reporter.event("first")
        reporter.event("second")
        reporter.outcome(Outcome(reason=TerminationReason.SUCCEEDED))
    assert service.refused == 1


def test_a_service_that_is_away_when_the_attempt_ends_hears_of_it_when_it_is_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens until the outcome waits already."""
    monkeypatch.setattr(reporting, "RETRY_SECONDS", 0.05)
    service.server.socket.close()
    with Reporter(spec(service)) as reporter:
        before = time.perf_counter()
        for step in range(100):
            reporter.progress(Progress(phase="training", step=step))
            reporter.event(f"event {step}")
        assert time.perf_counter() - before < 1
        back = Service(port=service.server.server_port)
        timer = threading.Timer(0.5, back.server.serve_forever)
        timer.daemon = True
        timer.start()
        reporter.outcome(Outcome(reason=TerminationReason.SUCCEEDED, message="a NUL \0 of somebody's file"))
    back.server.shutdown()
    assert back.paths()[:100] == ["events"] * 100
    assert back.heard[-1][1]["message"] == "a NUL \ufffd of somebody's file"


def test_an_outage_loses_neither_events_nor_the_outcome(service: Service) -> None:
    service.away_for = 3
    with Reporter(spec(service)) as reporter:
        reporter.event("first")
        reporter.event("second")
        reporter.outcome(Outcome(reason=TerminationReason.SUCCEEDED))
    said = [body["message"] for path, body, _ in service.heard if path.endswith("/events")]
    assert said == ["first", "second"]
    assert "outcome" in service.paths()
