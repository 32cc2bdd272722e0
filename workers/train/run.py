"""One rank of a training run, from the spec to the outcome; knows neither Ray nor who asked for it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from ibllm_core.contract.run_spec import Outcome, Progress, TrainSpec
from ibllm_core.contract.states import TerminationReason
from ibllm_core.errors import OutOfMemoryError
from ibllm_core.planning.advice import out_of_memory_advice
from ibllm_core.planning.choice import smaller
from ibllm_core.storage import Store
from workers.reporting import Voice
from workers.tracking.history import History
from workers.tracking.publisher import Publisher
from workers.train.checkpoint.listing import Checkpoints, Opened
from workers.train.checkpoint.persistence import persistently
from workers.train.checkpoint.resume import Choose, newest, resume
from workers.train.checkpoint.saver import Saver
from workers.train.checkpoint.state import recipe_of
from workers.train.control import Control, Stop
from workers.train.diverged import explain
from workers.train.health import DivergedError
from workers.train.loop import Loop, Trained, train
from workers.train.result import choose_result, header_of, publish
from workers.train.setup import Clock, Ready, prepare
from workers.train.telling import Telling
from workers.train.watchdog import LOADING_SECONDS, MIN_SECONDS, SAVING_SECONDS, Watchdog

log = logging.getLogger(__name__)


def run_rank(
    spec: TrainSpec,
    store: Store,
    cache: Path,
    voice: Voice,
    stop: Stop,
    clock: Clock,
    *,
    node: str = "",
    patience: float = MIN_SECONDS,
) -> Outcome:
    """Train one stage as one rank of the process group; the first rank's outcome is the run's.

    A step may take ``patience`` seconds, or several times the usual, before the watchdog ends the process.

    Raises ``InvalidSpecError`` with all that is wrong with the spec, ``OutOfMemoryError`` with what to go on with.
    """
    with Watchdog(min_seconds=patience) as watchdog:
        voice.progress(Progress(phase="loading", nodes=(node,)))
        ready = prepare(spec, store, cache, local_device(), clock)
        try:
            return _trained(spec, ready, store, cache, voice, stop, clock, watchdog, node)
        except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if _is_out_of_memory(error):
                raise _out_of_memory(ready, error) from error
            raise


def local_device() -> torch.device:
    """The device that init_distributed chose for this process."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _trained(
    spec: TrainSpec,
    ready: Ready,
    store: Store,
    cache: Path,
    voice: Voice,
    stop: Stop,
    clock: Clock,
    watchdog: Watchdog,
    node: str,
) -> Outcome:
    engine, is_first = ready.engine, ready.engine.rank == 0
    checkpoints = Checkpoints(store, spec.job_id, spec.stage)
    telling = Telling(spec, voice, node)
    saver = Saver(engine, checkpoints, spec.checkpoints, cache / "saving", telling.checkpoint)
    recipe = recipe_of(spec)

    def take_up(choose: Choose = newest) -> Opened | None:
        opened = resume(
            engine,
            checkpoints,
            cache / "resuming",
            recipe=recipe,
            base_sha256=ready.base.sha256,
            choose=choose,
            on_damage=lambda message: voice.event(message, level="warn"),
        )
        if is_first and opened:  # whoever saved it may have died before it was told
            telling.checkpoint(opened.state, persistently(checkpoints.complete))
        return opened

    with clock.part("checkpoint"):
        opened = take_up()
    begun = Trained.at(opened.state) if opened else Trained()
    with contextlib.ExitStack() as stack:
        if is_first:
            voice.event(f"{spec.stage}: {ready.plan.why}")
            log.info("%s", clock)
            telling.history = _history(spec, cache, opened)
            stack.enter_context(Publisher(telling.history, store, spec, spec.stage))
            if opened:
                voice.event(f"{spec.stage} goes on from step {begun.step}")
        loop = Loop(
            engine=engine,
            model=ready.model,
            feed=ready.feed,
            settings=spec.hyperparameters,
            evaluation=spec.evaluation,
            validation=ready.validation,
            machine=ready.machine,
            saver=saver,
            control=Control(spec.checkpoints, saver, stop),
            watchdog=watchdog,
            device=ready.device,
            recipe=recipe,
            base_sha256=ready.base.sha256,
            header=header_of(spec, ready),
            dtype=ready.dtype,
            history=telling.saved,
            on_log=telling.logged,
            on_evaluated=telling.evaluated,
        )
        done = _with_rollback(loop, begun, take_up, voice)
        if not done.is_whole:
            message = f"stopped after step {done.step} of {done.total_steps}, which is saved"
            outputs = {"steps": done.step, "trained_tokens": done.tokens}
            return Outcome(reason=TerminationReason.PREEMPTED, message=message, outputs=outputs)
        watchdog.allow(LOADING_SECONDS)
        voice.progress(Progress(phase="saving", step=done.step, total_steps=done.total_steps, nodes=(node,)))
        result = choose_result(spec, checkpoints, done, take_up, voice)
        return publish(spec, ready, done, result, telling.history.rows() if telling.history else [], store)


def _with_rollback(loop: Loop, done: Trained, take_up: Callable[[], Opened | None], voice: Voice) -> Trained:
    """Train; after three steps in a row that were not finite go back to the newest checkpoint, once a place."""
    seen: set[int] = set()
    while True:
        try:
            return train(loop, done)
        except DivergedError as error:
            loop.watchdog.allow(SAVING_SECONDS)
            loop.saver.wait()
            opened = None if error.step in seen else take_up()
            if opened is None:
                raise explain(loop, error.step, went_back=error.step in seen) from None
            seen.add(error.step)
            done = Trained.at(opened.state)
            if loop.engine.rank == 0:
                voice.event(
                    f"three steps up to {error.step} had gradients that were not finite: back to step {done.step}",
                    level="warn",
                )


def _history(spec: TrainSpec, cache: Path, opened: Opened | None) -> History:
    folder = cache / "history"
    if opened is None:
        return History(folder, spec)
    step = opened.state.step
    return History(folder, spec, saved=opened.history, step=step, resumed_from=f"step {step}")


def _is_out_of_memory(error: BaseException) -> bool:
    # torch has a type for a GPU's memory alone; a CPU's allocator says it in words.
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _out_of_memory(ready: Ready, error: BaseException) -> OutOfMemoryError:
    less = smaller(ready.plan)
    return OutOfMemoryError(
        f"a worker ran out of memory ({str(error).splitlines()[0]}): {out_of_memory_advice(ready.plan)}",
        micro_batch_tokens=less.micro_batch_tokens if less else None,
    )
