"""A run whose attempt is being stopped; it leaves when Ray says that the job ended."""

from __future__ import annotations

from ibllm_core.contract.states import RunState, TerminationReason
from orchestrator.scheduler.views import RayStatus, RunView, Transition, ended

MAX_SECONDS = 60.0


def decide(run: RunView) -> Transition:
    """Done for the reason that it was stopped for, at the latest after a minute, in which its training can save.

    An outcome is the attempt's last word; a success that came before the stop stays one, unless the user cancelled.
    A pause that became a cancel meanwhile ends the run.
    """
    if run.outcome and run.outcome.reason.is_success and not run.cancel_requested:
        return ended(run, run.outcome.reason, run.outcome.message)
    if run.outcome or run.ray in (RayStatus.ENDED, RayStatus.MISSING) or run.age > MAX_SECONDS:
        return ended(run, run.stop_reason or TerminationReason.CANCELLED, run.stop_message)
    return Transition(state=RunState.STOPPING, stop=True)
