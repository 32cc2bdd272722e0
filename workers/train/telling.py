"""What is said of a training while it goes on: to history and voice on the first rank, heartbeats alone on others."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from ibllm_core.contract import layout
from ibllm_core.contract import metrics as names
from ibllm_core.contract.run_spec import CheckpointReport, Progress, TrainSpec
from workers.reporting import Voice
from workers.tracking.history import History
from workers.train.checkpoint.state import CheckpointState
from workers.train.loop import Trained
from workers.train.step_metrics import step_metrics
from workers.train.telemetry import LoggedStep

METRICS_SECONDS = 10.0  # between two events of training losses, which a user reads as a list


class Telling:
    """Hears of steps, validations and checkpoints; ``history`` is set on the first rank."""

    def __init__(self, spec: TrainSpec, voice: Voice, node: str) -> None:
        self._spec, self._voice, self._node = spec, voice, node
        self._told = -math.inf
        self.history: History | None = None

    def saved(self) -> bytes:
        """All that was logged, for a checkpoint."""
        return self.history.to_bytes() if self.history else b""

    def logged(self, logged: LoggedStep) -> None:
        """A logged step: a heartbeat, and now and then an event with its metrics."""
        values = logged.metrics
        self._voice.progress(
            Progress(
                phase="training",
                step=logged.step,
                total_steps=logged.total_steps,
                seconds_left=None if logged.step == 0 else logged.seconds_left,
                loss=values.get(names.TRAIN_LOSS),
                tokens_per_second=values.get(names.TRAIN_TOKENS_PER_SECOND),
                gate_abs_mean=values.get(names.GATE_ABS_MEAN),
                nodes=(self._node,),
            )
        )
        if self.history is None:
            return
        self.history.log(logged.step, values)
        is_due = logged.step == logged.total_steps or time.monotonic() - self._told >= METRICS_SECONDS
        if is_due and names.TRAIN_LOSS in values and not logged.is_evaluated:
            message = f"Step {logged.step}/{logged.total_steps}: training loss={values[names.TRAIN_LOSS]:.2f}"
            self._tell(message, logged.step, logged.total_steps, values)

    def evaluated(self, done: Trained, metrics: Mapping[str, float]) -> None:
        """A validation, and what else is known of its step."""
        if self.history is None:
            return
        self.history.log(done.step, metrics)
        listed = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self._tell(f"{self._spec.stage}, step {done.step}: {listed}", done.step, done.total_steps, done.measured)

    def checkpoint(self, state: CheckpointState, kept: Sequence[int]) -> None:
        """A checkpoint, and the steps of all that there are now; only the first rank calls it."""
        prefix = layout.checkpoint(self._spec.job_id, self._spec.stage, state.step)
        self._voice.checkpoint(
            CheckpointReport(step=state.step, prefix=prefix, metrics=state.metrics, kept=tuple(sorted(kept)))
        )

    def _tell(self, message: str, step: int, total_steps: int, measured: Mapping[str, float]) -> None:
        data: dict[str, object] = dict(step_metrics(step, measured))
        data["total_steps"] = total_steps
        if names.TRAIN_TOKENS_PER_SECOND in measured:
            data["tokens_per_second"] = measured[names.TRAIN_TOKENS_PER_SECOND]
        self._voice.metrics(message, data)
        self._told = time.monotonic()
