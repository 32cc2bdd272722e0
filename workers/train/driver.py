"""The driver of a training run: a Ray Train gang, started together or not at all, and again when it died."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ibllm_core.contract.run_spec import Outcome, Progress, TrainSpec
from ibllm_core.contract.states import TerminationReason
from ibllm_core.storage import Store
from workers.reporting import Reporter
from workers.settings import WorkerSettings
from workers.train.control import Stop
from workers.train.elastic import ElasticTorchTrainer
from workers.train.preflight import check
from workers.train.restarts import Resizes, Restarts
from workers.train.supervisor import News, start_supervisor

RESIZE_SECONDS = 10.0
ELASTIC_START_SECONDS = "5"  # Ray takes 15 s to know that a node died: until then a gang would wait for it in vain
POLL_SECONDS = 0.5
# Ray Train hands these on to its controller. Its watcher of drained nodes would be one more process a gang, for a word
# that only ray.train.report makes use of.
CONTROLLER = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(POLL_SECONDS),
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
log = logging.getLogger(__name__)


def run(spec: TrainSpec, store: Store, settings: WorkerSettings, reporter: Reporter) -> Outcome:
    """Train one stage; what rank 0 returns is the outcome.

    A gang that died is started again from its newest checkpoint, with as many workers as there are; one that ran out of
    memory with half the micro-batch. Raises what a rank raised where that would only be raised again. SIGTERM, by which
    Ray and Kubernetes end a driver, lets the gang save the step that it is at. ``InvalidSpecError`` with all that is
    wrong with the spec comes before workers are asked for; what they have of memory, they know themselves.
    """
    check(spec, store)
    os.environ |= CONTROLLER
    ray.init(log_to_driver=True, ignore_reinit_error=True)
    supervisor = start_supervisor(spec)
    stop = Stop()
    stop.on_sigterm()
    fitting = _Thread(lambda: _fit(spec, settings, supervisor))
    while not fitting.has_ended(POLL_SECONDS):
        news = ray.get(supervisor.news.remote(stop.is_set))
        _tell(news, reporter)
        if stop.is_set and not news.has_gang:
            message = f"{spec.stage} was stopped while it had no workers; its checkpoints are saved"
            return Outcome(reason=TerminationReason.PREEMPTED, message=message)
    _tell(ray.get(supervisor.news.remote(stop.is_set)), reporter)
    return fitting.result()


def _fit(spec: TrainSpec, settings: WorkerSettings, supervisor: Any) -> Outcome:
    resources = spec.resources
    bundle = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        bundle["GPU"] = resources.gpus_per_worker
    elastic = resources.min_workers is not None
    if elastic:
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = ELASTIC_START_SECONDS
    trainer = (ElasticTorchTrainer if elastic else TorchTrainer)(
        _train_worker,
        train_loop_config={"supervisor": supervisor},
        scaling_config=ScalingConfig(
            num_workers=(resources.min_workers, resources.workers) if elastic else resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=bundle,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            name=spec.attempt_id,
            storage_path=str(settings.ibllm_cache / "ray-train"),
            failure_config=FailureConfig(max_failures=-1),  # Restarts decides
            callbacks=[Restarts(spec, supervisor), Resizes(supervisor)],
        ),
    )
    return Outcome.model_validate_json(trainer.fit().return_value)


def _train_worker(config: dict[str, Any]) -> str:
    """Import the model's packages in the workers alone: the driver would spend seconds on what it never uses."""
    entered = time.time()
    from workers.train.worker import train_worker

    return train_worker(config["supervisor"], entered)


def _tell(news: News, reporter: Reporter) -> None:
    """Rank 0 says how far it is; while there is none, the driver says that the attempt lives."""
    is_between = news.had_gang and not news.has_gang
    reporter.progress(Progress(phase="restarting") if is_between else None)
    for note in news.notes:
        log.info("%s", note.message)
        reporter.event(note.message, level=note.level, data=note.data)


class _Thread:
    """A call in a thread of its own: the main one stays free for signals."""

    def __init__(self, call: Callable[[], Outcome]) -> None:
        self._call = call
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fit", daemon=True)
        self._thread.start()

    def has_ended(self, seconds: float) -> bool:
        """Whether it ends within that time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> Outcome:
        """What the call returned, or raised."""
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome

    def _run(self) -> None:
        try:
            self._outcome = self._call()
        except BaseException as error:
            self._error = error
