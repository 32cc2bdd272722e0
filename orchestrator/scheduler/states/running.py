"""A run whose attempt speaks."""

from __future__ import annotations

from ibllm_core.contract.states import RunState, TerminationReason
from orchestrator.scheduler.views import RayStatus, RunView, Transition, asked_to_stop, ended

HEARTBEAT_MAX_SECONDS = 120.0
# An attempt sends its outcome before its Ray job ends; this much later it will not come any more.
OUTCOME_GRACE_SECONDS = 10.0


def decide(run: RunView) -> Transition:
    """Ended by its own word, by Ray's, by silence, or by the user; else running on."""
    if run.outcome:
        return ended(run, run.outcome.reason, run.outcome.message)
    if asked := asked_to_stop(run):
        return asked
    if run.ray in (RayStatus.ENDED, RayStatus.MISSING) and run.silence > OUTCOME_GRACE_SECONDS:
        return ended(run, TerminationReason.INFRASTRUCTURE, "the attempt's processes died without a word")
    if run.silence > HEARTBEAT_MAX_SECONDS:
        message = f"no heartbeat for {run.silence:.0f} s"
        return Transition(state=RunState.STOPPING, reason=TerminationReason.HEARTBEAT_LOST, message=message, stop=True)
    return Transition(state=RunState.RUNNING)
