"""Says on the terminal how a run goes, in place of a service that would be told."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ibllm_core.contract.run_spec import CheckpointReport, Progress

log = logging.getLogger("ibllm")


class Console:
    """The words of the first process; the others are silent."""

    def __init__(self, rank: int) -> None:
        self._is_first = rank == 0
        self._last = ""

    def progress(self, progress: Progress) -> None:
        """One line for each that says something new."""
        line = self._line(progress)
        if self._is_first and line != self._last:
            log.info("%s", line)
        self._last = line

    def event(self, message: str, *, level: str = "info", data: Mapping[str, object] | None = None) -> None:
        """One line."""
        del data
        self._say(message, {"info": logging.INFO, "warn": logging.WARNING}.get(level, logging.ERROR))

    def metrics(self, message: str, data: Mapping[str, object]) -> None:
        """One line for a validation; ``progress`` says the rest."""
        if "valid_loss" in data:
            self._say(message, logging.INFO)

    def checkpoint(self, report: CheckpointReport) -> None:
        """Nothing: the log says what was saved."""

    def _say(self, message: str, level: int) -> None:
        if self._is_first:
            log.log(level, "%s", message)

    def _line(self, progress: Progress) -> str:
        if progress.loss is None:
            return progress.phase + (f" {progress.step}" if progress.step else "")
        left = f", {progress.seconds_left:.0f} s left" if progress.seconds_left else ""
        speed = f", {progress.tokens_per_second:.0f} tokens/s" if progress.tokens_per_second else ""
        return f"step {progress.step} of {progress.total_steps}: loss {progress.loss:.4f}{speed}{left}"
