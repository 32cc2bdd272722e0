"""One rank of a gang on Ray."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray
import torch.distributed as dist

from ibllm_core.contract.run_spec import Outcome
from ibllm_core.contract.states import TerminationReason
from ibllm_core.open_store import open_store
from ibllm_core.settings import StorageSettings
from workers.reporting import Reporter
from workers.settings import WorkerSettings
from workers.train.control import Stop
from workers.train.engine.build import init_distributed
from workers.train.run import run_rank
from workers.train.setup import Clock
from workers.train.supervisor import Assignment, Listener


def train_worker(supervisor: Any, entered: float) -> str:
    """Ray Train's loop function; returns the rank's outcome as JSON. ``entered`` is when the imports began."""
    imported = time.time()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for each heartbeat
    init_distributed()
    rank = dist.get_rank()
    assignment: Assignment = ray.get(supervisor.begin.remote(rank, dist.get_world_size()))
    clock = Clock()
    clock.parts |= {"gang": entered - assignment.since, "imports": imported - entered}
    return _outcome(assignment, supervisor, rank, clock).model_dump_json()


def _outcome(assignment: Assignment, supervisor: Any, rank: int, clock: Clock) -> Outcome:
    spec, settings, stop = assignment.spec, WorkerSettings(), Stop()
    if assignment.stop:
        return Outcome(reason=TerminationReason.PREEMPTED, message="stopped before the first step")
    with Reporter(spec, rank) as reporter, Listener(supervisor, rank, stop):
        return run_rank(
            spec,
            open_store(StorageSettings()),
            settings.ibllm_cache,
            reporter,
            stop,
            clock,
            node=ray.get_runtime_context().get_node_id(),
            patience=settings.ibllm_step_patience,
        )
