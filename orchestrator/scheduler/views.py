"""Plain data that the state functions decide on, and what they decide."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from ibllm_core.contract.run_spec import Outcome
from ibllm_core.contract.states import RunState, TerminationReason
from orchestrator.scheduler.policy import Wait


class RayStatus(Enum):
    """What Ray says of an attempt's job; ``UNKNOWN`` means that Ray did not answer."""

    MISSING = auto()
    ALIVE = auto()
    ENDED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as it was loaded, with its newest attempt.

    ``deaf_until`` is when the API was last seen to be away: nobody could be heard before.
    """

    now: datetime
    since: datetime
    num_attempts: int
    cancel_requested: bool
    parent_failed: bool = False
    admitted: bool = False
    wait: Wait | None = None
    ray: RayStatus = RayStatus.UNKNOWN
    heartbeat_at: datetime | None = None
    deaf_until: datetime | None = None
    outcome: Outcome | None = None
    stop_reason: TerminationReason | None = None
    stop_message: str = ""

    @property
    def age(self) -> float:
        """Seconds in the present state."""
        return (self.now - self.since).total_seconds()

    @property
    def silence(self) -> float:
        """Seconds in which the attempt could have been heard, and was not."""
        heard = self.heartbeat_at or self.since
        return (self.now - max(heard, self.deaf_until or heard)).total_seconds()


@dataclass(frozen=True, kw_only=True)
class Transition:
    """The next state, and what must be done for it. A retry is ``PENDING`` with ``retry_after``."""

    state: RunState
    reason: TerminationReason | None = None
    message: str = ""
    retry_after: float | None = None
    wait: Wait | None = None
    submit: bool = False
    stop: bool = False


MAX_ATTEMPTS = 3
RETRY_SECONDS = (5.0, 30.0)  # a restarted Ray head needs a few seconds; a second failure is rarely that


def ended(run: RunView, reason: TerminationReason, message: str) -> Transition:
    """The transition of an attempt that ended: done, or pending again where the reason allows it."""
    if reason.is_retried and run.num_attempts < MAX_ATTEMPTS and not run.cancel_requested:
        delay = RETRY_SECONDS[min(run.num_attempts, len(RETRY_SECONDS)) - 1]
        return Transition(state=RunState.PENDING, reason=reason, message=message, retry_after=delay)
    if reason is TerminationReason.PREEMPTED and run.cancel_requested:
        reason = TerminationReason.CANCELLED  # it saved and left because the user said so
    return Transition(state=RunState.DONE, reason=reason, message=message)
