"""A run whose attempt is handed to Ray and has not spoken yet."""

from __future__ import annotations

from ibllm_core.contract.states import RunState, TerminationReason
from orchestrator.scheduler.views import RayStatus, RunView, Transition, ended

MAX_SECONDS = 300.0  # a cold node loads a base in this time; longer means that the gang does not come together


def decide(run: RunView) -> Transition:
    """Submit until Ray knows the attempt; then wait for its first heartbeat."""
    if run.cancel_requested:
        return Transition(state=RunState.STOPPING, reason=TerminationReason.CANCELLED, message="cancelled", stop=True)
    if run.outcome:
        return ended(run, run.outcome.reason, run.outcome.message)
    if run.heartbeat_at:
        return Transition(state=RunState.RUNNING)
    if run.ray is RayStatus.ENDED:
        return ended(run, TerminationReason.INFRASTRUCTURE, "the attempt's Ray job ended before it said a word")
    if run.silence > MAX_SECONDS:
        message = f"no sign of life within {MAX_SECONDS:.0f} s of its start"
        return Transition(state=RunState.STOPPING, reason=TerminationReason.START_TIMEOUT, message=message, stop=True)
    return Transition(state=RunState.STARTING, submit=run.ray is RayStatus.MISSING)
