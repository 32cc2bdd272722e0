"""Following a job: a bar a run on a terminal, a plain line now and then elsewhere, JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from ibllm_core.contract.api.jobs import FineTuningJob
from ibllm_core.contract.states import JobStatus, RunState
from orchestrator.cli.run_words import extent, run_words
from orchestrator.cli.screen import plain, say
from orchestrator.client import Client, ClientError
from orchestrator.client.errors import TEMPORARY
from orchestrator.client.retry import Patience

POLL_SECONDS = 1.0
PLAIN_LINE_SECONDS = 15.0
PATIENCE_SECONDS = 3600.0  # a job goes on while nobody can look at it
BAR_WIDTH = 24
NARROW = 110  # columns below which a bar leaves its place to words


class Display(Protocol):
    """What shows a job, again and again."""

    def show(self, job: FineTuningJob) -> None:
        """Show how the job is now."""


def follow(client: Client, job_id: str, display: Display) -> FineTuningJob:
    """Show a job until it ends or pauses, and return it; goes on where the service is away for a while."""
    patience = Patience(PATIENCE_SECONDS)
    is_lost = False
    while True:
        try:
            job = client.jobs.retrieve(job_id)
        except TEMPORARY as error:
            is_lost = is_lost or _lost(error)
            patience.wait(error)
            continue
        patience.restore()
        is_lost = False
        display.show(job)
        if job.status.is_final or job.status == JobStatus.PAUSED:
            return job
        time.sleep(POLL_SECONDS)


@contextmanager
def display_on(console: Console) -> Iterator[Display]:
    """What suits a console: bars that move, or lines for a log."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    narrow = console.width < NARROW
    columns = (
        TextColumn("{task.description:<8}"),
        *(() if narrow else (BarColumn(BAR_WIDTH),)),
        TextColumn("{task.fields[words]}", markup=False, table_column=Column(overflow="fold")),
    )
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        yield Bars(progress)


class Bars:
    """A bar a run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, job: FineTuningJob) -> None:
        """Move the bars."""
        for run in job.runs:
            if run.kind not in self._tasks:
                self._tasks[run.kind] = self._progress.add_task(run.kind, total=1, words="")
            done, total = extent(run)
            words = plain(run_words(run)).plain
            self._progress.update(self._tasks[run.kind], completed=done, total=total or 1, words=words)


class PlainLines:
    """A line when a run changes its state, and every quarter of a minute."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, str] = {}
        self._shown = 0.0

    def show(self, job: FineTuningJob) -> None:
        """Print what is new, or due."""
        for run in job.runs:
            changed = self._states.get(run.kind) != run.state
            due = run.state == RunState.RUNNING and time.monotonic() - self._shown > PLAIN_LINE_SECONDS
            self._states[run.kind] = run.state
            if (changed and run.state != RunState.PENDING) or due:
                self._console.print(plain(f"{run.kind:<9} {run_words(run)}"), soft_wrap=True)
                self._shown = time.monotonic()


class JsonLines:
    """The job in one line, whenever it has changed."""

    def __init__(self) -> None:
        self._last: FineTuningJob | None = None

    def show(self, job: FineTuningJob) -> None:
        """Print the job, unless nothing is new."""
        if job != self._last:
            self._last = job
            typer.echo(job.model_dump_json())


def _lost(error: ClientError) -> bool:
    say(f"{error}; still trying, the job goes on meanwhile")
    return True
