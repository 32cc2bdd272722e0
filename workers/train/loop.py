"""The training loop: global batches in their fixed order, one step each, and what happens between them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from ibllm_core.adapter.header import AdapterHeader
from ibllm_core.contract import metrics as names
from ibllm_core.contract.job_spec import EvaluationSettings, Hyperparameters
from ibllm_core.data.dataset import Dataset
from ibllm_core.evaluation.gates import gate_metrics
from ibllm_core.evaluation.losses import evaluation_losses
from ibllm_core.model.imagebind_llm import ImageBindLLM
from workers.train.checkpoint.saver import Saver
from workers.train.checkpoint.state import CheckpointState
from workers.train.control import Control
from workers.train.engine.base import Engine
from workers.train.engine.optimizer import rate_share, warmup_steps
from workers.train.feed import Feed, Step, seed_step
from workers.train.health import HealthReader
from workers.train.step import train_step
from workers.train.step_metrics import FULL_VALIDATION_LOSS, step_metrics
from workers.train.telemetry import LoggedStep, Machine, Window, log_every
from workers.train.watchdog import LOADING_SECONDS, SAVING_SECONDS, Watchdog


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What a training is made of; the same on every rank but for the feed's slice."""

    engine: Engine
    model: ImageBindLLM
    feed: Feed
    settings: Hyperparameters
    evaluation: EvaluationSettings
    validation: Dataset | None
    machine: Machine
    saver: Saver
    control: Control
    watchdog: Watchdog
    device: torch.device
    recipe: str
    base_sha256: str
    header: AdapterHeader
    dtype: torch.dtype
    history: Callable[[], bytes]
    on_log: Callable[[LoggedStep], None]
    on_evaluated: Callable[[Trained, dict[str, float]], None]


@dataclass(kw_only=True)
class Trained:
    """How far a training is; ``tokens`` are real ones, each as often as it was seen.

    ``measured`` has what is known of the last step, by the names of metrics.
    """

    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    window_loss: float = 0.0
    window_steps: int = 0
    measured: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it reached its end."""
        return self.step == self.total_steps

    @property
    def validation_loss(self) -> float | None:
        """After the last step, where it was measured."""
        return self.measured.get(names.EVAL_LOSS)

    @staticmethod
    def at(state: CheckpointState) -> Trained:
        """Where a checkpoint left it."""
        return Trained(
            step=state.step,
            tokens=state.tokens,
            window_loss=state.window_loss,
            window_steps=state.window_steps,
            measured={} if state.validation_loss is None else {names.EVAL_LOSS: state.validation_loss},
            skipped_steps=state.skipped_steps,
            skipped_in_a_row=state.skipped_in_a_row,
        )


def train(loop: Loop, done: Trained) -> Trained:
    """Go on from ``done`` to the end, or to where somebody asks to stop; saves before it returns.

    Raises ``DivergedError`` after three steps in a row with gradients that are not finite.
    """
    done.total_steps = loop.feed.count(loop.settings.max_steps)
    warmup, every = warmup_steps(loop.settings, done.total_steps), log_every(done.total_steps)
    health = HealthReader(skipped=done.skipped_steps, in_a_row=done.skipped_in_a_row)
    restored_loss = done.window_loss if loop.feed.rank == 0 else 0.0
    window = Window(loop.device, loss=restored_loss, steps=done.window_steps)
    if done.step == 0:
        loop.on_log(LoggedStep(step=0, total_steps=done.total_steps, metrics=gates_of(loop), seconds_left=float("nan")))
    loop.watchdog.step()
    for step in loop.feed.steps(done.step + 1, done.total_steps, pin=loop.device.type == "cuda"):
        evaluates = _is_evaluated(loop, step, done.total_steps)
        loop.control.begin(step.number, save=evaluates)
        seed_step(loop.feed.sampler.seed, step.number, loop.feed.rank)
        share = rate_share(step.number - 1, done.total_steps, warmup, loop.settings.final_rate_share)
        window.add(step, train_step(loop.engine, step, share, loop.device))
        health.see(step.number, loop.engine.health)
        done.step, done.tokens, done.measured = step.number, done.tokens + step.tokens, {}
        if step.number % every == 0 or step.number == done.total_steps:
            _take_stock(health, done)
            _log(loop, window, share, done, is_evaluated=evaluates)
            window = Window(loop.device)
        if evaluates:
            window.pause(_evaluate(loop, done))
        orders = loop.control.orders()
        if orders.save or step.number == done.total_steps:
            loop.watchdog.allow(SAVING_SECONDS)  # a save that is under way is waited for
            _take_stock(health, done)
            done.window_loss, done.window_steps = window.loss_sum(), window.steps
            if window.steps:  # else the step is a logged one
                mean_loss = {names.TRAIN_LOSS: done.window_loss / done.window_steps}
                done.measured |= {**mean_loss, **_rate_and_gates(loop, share)}
            loop.saver.save(state_of(loop, done), loop.history())
        loop.watchdog.step()
        if gc.get_freeze_count() == 0:
            gc.freeze()  # what is alive now stays alive: full collections paused for half a second in nanochat
        if orders.stop:
            break
    loop.watchdog.allow(SAVING_SECONDS)
    loop.saver.wait()
    return done


def gates_of(loop: Loop) -> dict[str, float]:
    """The gates as metrics, one copy to the host for all layers; none for a fusion without gates. All ranks call it."""
    with loop.engine.gathered([loop.model.fusion.gates]):
        magnitudes = loop.model.gate_magnitudes()
        return {} if magnitudes is None else gate_metrics(magnitudes)


def state_of(loop: Loop, done: Trained) -> CheckpointState:
    """What a checkpoint of now says of itself."""
    return CheckpointState(
        step=done.step,
        updates=loop.engine.updates,
        tokens=done.tokens,
        loss_scale=loop.engine.loss_scale,
        window_loss=done.window_loss,
        window_steps=done.window_steps,
        skipped_steps=done.skipped_steps,
        skipped_in_a_row=done.skipped_in_a_row,
        recipe=loop.recipe,
        base_sha256=loop.base_sha256,
        validation_loss=done.validation_loss,
        metrics=step_metrics(done.step, done.measured),
        header=loop.header,
        dtype=str(loop.dtype).removeprefix("torch."),
        world_size=loop.engine.world_size,
        zero_stage=loop.engine.zero_stage,
    )


def _take_stock(health: HealthReader, done: Trained) -> None:
    """Know how all steps until now went; waits for the device."""
    health.drain()
    done.skipped_steps, done.skipped_in_a_row = health.skipped, health.in_a_row


def _log(loop: Loop, window: Window, share: float, done: Trained, *, is_evaluated: bool) -> None:
    seconds = window.seconds_a_step
    done.measured = {
        **window.close(loop.machine, loop.engine.world_size),
        names.TRAIN_GRAD_NORM: float(loop.engine.health[2]),
        names.TRAIN_SKIPPED_STEPS: float(done.skipped_steps),
        **_rate_and_gates(loop, share),
    }
    loop.on_log(
        LoggedStep(
            step=done.step,
            total_steps=done.total_steps,
            metrics=done.measured,
            seconds_left=(done.total_steps - done.step) * seconds,
            is_evaluated=is_evaluated,
        )
    )


def _rate_and_gates(loop: Loop, share: float) -> dict[str, float]:
    return {names.TRAIN_LEARNING_RATE: loop.settings.learning_rate * share, **gates_of(loop)}


def _is_evaluated(loop: Loop, step: Step, total_steps: int) -> bool:
    if loop.validation is None:
        return False
    if loop.evaluation.every_steps is None:
        return step.is_epochs_last or step.number == total_steps
    return step.number % loop.evaluation.every_steps == 0 or step.number == total_steps


def _evaluate(loop: Loop, done: Trained) -> float:
    """Measure the validation losses; returns the seconds that it took."""
    assert loop.validation is not None
    started = time.monotonic()
    loop.watchdog.allow(LOADING_SECONDS)
    found = evaluation_losses(
        loop.engine.forward,
        loop.validation,
        module=loop.model,
        media_tokens=loop.feed.media_tokens,
        row_tokens=loop.feed.sampler.row_tokens,
        pad_token=loop.feed.pad_token,
        limit=loop.evaluation.max_samples,
        rank=loop.feed.rank,
        world_size=loop.feed.world_size,
        rows_per_batch=loop.feed.micro_rows,
        variants=("right", "shuffled"),
    )
    dist.all_reduce(found.sums)
    metrics = found.metrics()
    done.measured = {**done.measured, **metrics}
    if names.EVAL_LOSS in metrics and loop.evaluation.max_samples >= len(loop.validation):
        done.measured[FULL_VALIDATION_LOSS] = metrics[names.EVAL_LOSS]
    loop.on_evaluated(done, metrics)
    loop.watchdog.step()
    return time.monotonic() - started
