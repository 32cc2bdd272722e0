"""What driver, Ray Train's controller and the ranks of a gang tell each other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import ray

from ibllm_core.contract.run_spec import TrainSpec
from workers.train.control import Stop

POLL_SECONDS = 0.5
SILENT_SECONDS = 10.0  # twenty questions that a rank did not ask
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something for the user to read, which the driver passes on."""

    message: str
    level: str = "info"
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class News:
    """What the driver learns: whether a gang is there, whether one ever was, and what is to be told."""

    has_gang: bool
    had_gang: bool
    notes: tuple[Note, ...]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a rank begins with; ``since`` is when the gang was wanted, as seconds since the epoch."""

    spec: TrainSpec
    stop: bool
    since: float


class Supervisor:
    """An actor beside the driver. All others ask it; it never waits for anybody."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec = spec
        self._stop = self._leave = self._had_gang = False
        self._heard: dict[int, float] = {}
        self._ended: set[int] = set()
        self._notes: list[Note] = []
        self._since = time.time()
        self._world_size = 0

    def news(self, stop: bool) -> News:
        """To the driver, who says whether the run is to stop; notes are told once."""
        self._stop |= stop
        notes, self._notes = tuple(self._notes), []
        return News(has_gang=bool(self._heard), had_gang=self._had_gang, notes=notes)

    def begin(self, rank: int, world_size: int) -> Assignment:
        """A rank is there."""
        if self._world_size not in (0, world_size):
            message = f"{self._spec.stage} goes on with {world_size} of {self._spec.resources.workers} workers"
            self._notes.append(Note(message=message, data={"world_size": world_size}))
        self._world_size, self._had_gang = world_size, True
        self._heard[rank] = time.monotonic()
        return Assignment(spec=self._spec, stop=self._stop, since=self._since)

    def ask(self, rank: int) -> bool:
        """A rank's sign of life; whether it should save and leave."""
        self._heard[rank] = time.monotonic()
        return self._stop or self._leave

    def end(self, rank: int) -> None:
        """A rank has done its work, or failed at it."""
        self._ended.add(rank)

    def leave(self) -> None:
        """Ask the gang to save and leave, for another one to go on."""
        self._leave = True

    def is_gone(self) -> bool:
        """Whether every rank has left, or answers no more."""
        return self._heard.keys() <= self._ended | set(self.silent())

    def silent(self) -> list[int]:
        """Ranks that do not answer: frozen, or on a node that is cut off."""
        now = time.monotonic()
        return sorted(r for r, heard in self._heard.items() if r not in self._ended and now - heard > SILENT_SECONDS)

    def renew(self, spec: TrainSpec | None = None, note: Note | None = None) -> bool:
        """The gang is no more, another one comes, for ``spec`` where that changed; whether one is still wanted."""
        self._spec = spec or self._spec
        self._notes += [note] if note else []
        self._heard.clear()
        self._ended.clear()
        self._leave, self._since = False, time.time()
        return not self._stop


def start_supervisor(spec: TrainSpec) -> Any:
    """A handle of a new supervisor on this node, which lives as long as its driver."""
    here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
    return ray.remote(num_cpus=0, label_selector=here)(Supervisor).remote(spec)


class Listener:
    """Context manager in a rank: a thread asks the supervisor, and sets ``stop``."""

    def __init__(self, supervisor: Any, rank: int, stop: Stop) -> None:
        self._supervisor, self._rank, self._stop = supervisor, rank, stop
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._supervisor.end.remote(self._rank)

    def _run(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            try:
                if ray.get(self._supervisor.ask.remote(self._rank), timeout=10):
                    self._stop.set()
            except ray.exceptions.RayError as error:
                log.warning("the supervisor does not answer: %s", error)
