"""Plain data that the state functions decide on, and what they decide."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from ibllm_core.contract.job_spec import RetryPolicy
from ibllm_core.contract.run_spec import Outcome
from ibllm_core.contract.states import RunState, TerminationReason
from orchestrator.scheduler.policy import Wait


class RayStatus(Enum):
    """What Ray says of an attempt's job; ``UNKNOWN`` means that Ray did not answer."""

    MISSING = auto()
    ALIVE = auto()
    ENDED = auto()
    UNKNOWN = auto()


RETRY = RetryPolicy()


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as it was loaded, with its newest attempt.

    ``num_attempts`` counts those that were tries: not what was paused or preempted. ``is_submitted`` is whether Ray has
    taken the newest.
    ``deaf_until`` is when the API was last seen to be away: nobody could be heard before.
    """

    now: datetime
    since: datetime
    num_attempts: int
    retry: RetryPolicy = RETRY
    cancel_requested: bool
    pause_requested: bool = False
    parent_failed: bool = False
    admitted: bool = False
    wait: Wait | None = None
    ray: RayStatus = RayStatus.UNKNOWN
    is_submitted: bool = False
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
    stop: bool = False


MAX_BACKOFF_SECONDS = 3600.0
BACKOFF_FACTOR = 6.0  # a restarted Ray head needs a few seconds; a second failure is rarely that


def ended(run: RunView, reason: TerminationReason, message: str) -> Transition:
    """The transition of an attempt that ended: done, or pending again where the reason allows it."""
    if run.cancel_requested:
        if reason.is_retried:
            reason = TerminationReason.CANCELLED  # whatever it ended of, the user wanted no more of it
    elif reason.is_free:
        return Transition(state=RunState.PENDING, reason=reason, message=message, retry_after=0.0)
    elif reason.is_retried and run.num_attempts < run.retry.max_attempts:
        delay = run.retry.backoff_seconds * BACKOFF_FACTOR ** (run.num_attempts - 1)
        return Transition(
            state=RunState.PENDING, reason=reason, message=message, retry_after=min(delay, MAX_BACKOFF_SECONDS)
        )
    return Transition(state=RunState.DONE, reason=reason, message=message)


def asked_to_stop(run: RunView) -> Transition | None:
    """The way out of a state with an attempt, where the user wants the job to end or to pause."""
    if run.cancel_requested:
        return Transition(state=RunState.STOPPING, reason=TerminationReason.CANCELLED, message="cancelled", stop=True)
    if run.pause_requested:
        return Transition(state=RunState.STOPPING, reason=TerminationReason.PAUSED, message="paused", stop=True)
    return None
