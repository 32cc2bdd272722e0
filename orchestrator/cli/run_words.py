"""A run in one line: how far it is, how fast, or why it waits."""

from __future__ import annotations

from ibllm_core.contract.api.jobs import ShownRun
from ibllm_core.contract.states import RunState
from orchestrator.cli.screen import span

NUMBERS = (("loss", "loss {:.3f}"), ("gate_abs_mean", "gate {:.3f}"), ("tokens_per_second", "{:,.0f} tokens/s"))


def run_words(run: ShownRun) -> str:
    """What there is to say of a run."""
    if run.state == RunState.DONE:
        took = f" in {span(run.seconds)}" if run.seconds is not None else ""
        return f"{run.reason}{took}{f': {run.message}' if run.message else ''}"
    if run.waiting:
        return run.waiting.message
    if run.state != RunState.RUNNING or not run.progress:
        return str(run.state)
    progress = run.progress
    done, total = extent(run)
    parts = [str(progress.get("phase", "running"))]
    if total:
        parts.append(f"step {done:,.0f}/{total:,.0f}")
    elif done:
        parts.append(f"{done:,.0f} so far")
    parts += [form.format(progress[name]) for name, form in NUMBERS if progress.get(name) is not None]
    if progress.get("seconds_left"):
        parts.append(f"{span(progress['seconds_left'])} left")
    return " · ".join(parts)


def extent(run: ShownRun) -> tuple[float, float]:
    """How far a run is, and of how much; 0 where nobody knows that."""
    if run.state == RunState.DONE:
        return 1, 1
    progress = run.progress or {}
    return progress.get("step") or 0, progress.get("total_steps") or 0
