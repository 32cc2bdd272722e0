"""Following a job: a live line a run in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from orchestrator.cli.client import Client

POLL_SECONDS = 1.0
PLAIN_LINE_SECONDS = 15.0
FINAL = ("succeeded", "failed", "cancelled")


def follow(client: Client, job_id: str, console: Console) -> dict[str, Any]:
    """Show a job until its end, and return it."""
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}
        plain = _PlainLines(console)
        while True:
            job: dict[str, Any] = client.get(f"/fine_tuning/jobs/{job_id}")
            for run in job["runs"]:
                if run["kind"] not in tasks:
                    tasks[run["kind"]] = progress.add_task(run["kind"], total=1, words="")
                done, total = extent(run)
                progress.update(tasks[run["kind"]], completed=done, total=total, words=words(run))
            if not console.is_terminal:
                plain.show(job)
            if job["status"] in FINAL:
                return job
            time.sleep(POLL_SECONDS)


def extent(run: dict[str, Any]) -> tuple[float, float]:
    """How far a run is, and of how much."""
    if run["state"] == "done":
        return 1, 1
    progress = run["progress"] or {}
    return progress.get("step", 0), progress.get("total_steps") or 1


def words(run: dict[str, Any]) -> str:
    """What there is to say of a run in one line."""
    if run["state"] == "done":
        return f"{run['reason']}, {run['seconds']:.0f} s" if run["seconds"] is not None else str(run["reason"])
    if run["waiting"]:
        return str(run["waiting"]["message"])
    progress = run["progress"]
    if run["state"] != "running" or not progress:
        return str(run["state"])
    parts = [progress["phase"]]
    if progress["total_steps"]:
        parts.append(f"step {progress['step']}/{progress['total_steps']}")
    elif progress["step"]:
        parts.append(f"{progress['step']} so far")
    for name, form in (
        ("loss", "loss {:.3f}"),
        ("tokens_per_second", "{:.0f} tokens/s"),
        ("gate_abs_mean", "gate {:.3f}"),
    ):
        if progress[name] is not None:
            parts.append(form.format(progress[name]))
    if progress["seconds_left"]:
        parts.append(f"{progress['seconds_left']:.0f} s left")
    return " · ".join(parts)


class _PlainLines:
    """For logs: a line when a run changes its state, and every quarter of a minute."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, str] = {}
        self._shown = 0.0

    def show(self, job: dict[str, Any]) -> None:
        for run in job["runs"]:
            changed = self._states.get(run["kind"]) != run["state"]
            due = run["state"] == "running" and time.monotonic() - self._shown > PLAIN_LINE_SECONDS
            self._states[run["kind"]] = run["state"]
            if (changed and run["state"] != "pending") or due:
                self._console.print(f"{run['kind']:<9} {words(run)}", soft_wrap=True)
                self._shown = time.monotonic()
