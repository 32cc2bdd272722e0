"""A run that waits for its parents, for room, or for its next try."""

from __future__ import annotations

from ibllm_core.contract.states import RunState, TerminationReason, WaitCode
from orchestrator.scheduler.policy import Wait
from orchestrator.scheduler.views import RunView, Transition

PAUSED = Wait(code=WaitCode.PAUSED, message="the job is paused: resume it")


def decide(run: RunView) -> Transition:
    """Cancelled, given up with its parent, admitted, or waiting with a reason."""
    if run.cancel_requested:
        return Transition(state=RunState.DONE, reason=TerminationReason.CANCELLED, message="cancelled before it began")
    if run.parent_failed:
        return Transition(
            state=RunState.DONE, reason=TerminationReason.PARENT_FAILED, message="an earlier run of the job failed"
        )
    if run.pause_requested:
        return Transition(state=RunState.PENDING, wait=PAUSED)
    if run.admitted:
        return Transition(state=RunState.STARTING)
    return Transition(state=RunState.PENDING, wait=run.wait)
