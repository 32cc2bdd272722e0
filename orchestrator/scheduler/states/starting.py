"""A run whose attempt is on its way to Ray, by the outbox, or is there and has not spoken yet."""

from __future__ import annotations

from ibllm_core.contract.states import RunState, TerminationReason
from orchestrator.scheduler.views import RayStatus, RunView, Transition, asked_to_stop, ended

LOST_SECONDS = 10.0
MAX_SECONDS = 300.0  # a cold node loads a base in this time; longer means that the gang does not come together


def decide(run: RunView) -> Transition:
    """Wait for the attempt's first heartbeat; what Ray had taken and does not know any more is lost."""
    if asked := asked_to_stop(run):
        return asked
    if run.outcome:
        return ended(run, run.outcome.reason, run.outcome.message)
    if run.heartbeat_at:
        return Transition(state=RunState.RUNNING)
    is_lost = run.ray is RayStatus.MISSING and run.is_submitted and run.silence > LOST_SECONDS
    if is_lost or run.ray is RayStatus.ENDED:
        what = "is not known to Ray any more: its head restarted" if is_lost else "ended before it said a word"
        return ended(run, TerminationReason.INFRASTRUCTURE, f"the attempt's Ray job {what}")
    if run.silence > MAX_SECONDS:
        message = f"no sign of life within {MAX_SECONDS:.0f} s of its start"
        return Transition(state=RunState.STOPPING, reason=TerminationReason.START_TIMEOUT, message=message, stop=True)
    return Transition(state=RunState.STARTING)
