from datetime import UTC, datetime, timedelta

import pytest

from ibllm_core.contract.job_spec import RetryPolicy
from ibllm_core.contract.run_spec import Outcome
from ibllm_core.contract.states import RunState, TerminationReason
from orchestrator.scheduler.states import pending, running, starting, stopping
from orchestrator.scheduler.views import RayStatus, RunView

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DECIDERS = {"pending": pending, "starting": starting, "running": running, "stopping": stopping}


def view(**changes: object) -> RunView:
    values = {"now": NOW, "since": NOW, "num_attempts": 1, "cancel_requested": False, "ray": RayStatus.ALIVE}
    return RunView(**{**values, **changes})  # type: ignore[arg-type]


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_a_pending_run_starts_when_it_is_admitted() -> None:
    assert pending.decide(view(admitted=True)).state is RunState.STARTING
    assert pending.decide(view()).state is RunState.PENDING


def test_a_pending_run_ends_with_its_parent() -> None:
    assert pending.decide(view(parent_failed=True)).reason is TerminationReason.PARENT_FAILED


def test_an_attempt_that_ray_had_taken_and_lost_is_tried_again() -> None:
    lost = {"ray": RayStatus.MISSING, "since": ago(starting.LOST_SECONDS + 1)}
    ended = starting.decide(view(is_submitted=True, **lost))
    assert (ended.state, ended.reason) == (RunState.PENDING, TerminationReason.INFRASTRUCTURE)
    assert starting.decide(view(is_submitted=False, **lost)).state is RunState.STARTING  # the outbox has it
    assert starting.decide(view(is_submitted=True, ray=RayStatus.UNKNOWN)).state is RunState.STARTING


def test_the_first_heartbeat_makes_a_run_running() -> None:
    assert starting.decide(view(heartbeat_at=NOW)).state is RunState.RUNNING


def test_a_start_that_takes_too_long_is_stopped() -> None:
    late = starting.decide(view(since=ago(starting.MAX_SECONDS + 1)))
    assert (late.state, late.reason, late.stop) == (RunState.STOPPING, TerminationReason.START_TIMEOUT, True)


def test_silence_stops_a_running_attempt() -> None:
    quiet = view(heartbeat_at=ago(running.HEARTBEAT_MAX_SECONDS + 1), since=ago(900))
    assert running.decide(quiet).reason is TerminationReason.HEARTBEAT_LOST
    assert running.decide(view(heartbeat_at=ago(5), since=ago(900))).state is RunState.RUNNING


def test_silence_counts_only_while_the_api_could_hear() -> None:
    quiet = {"heartbeat_at": ago(900), "since": ago(1800)}
    assert running.decide(view(**quiet, deaf_until=ago(60))).state is RunState.RUNNING
    ended = running.decide(view(**quiet, deaf_until=ago(5), ray=RayStatus.ENDED))
    assert ended.state is RunState.RUNNING  # its outcome may be on its way, now that the API is back
    still = running.decide(view(**quiet, deaf_until=ago(running.HEARTBEAT_MAX_SECONDS + 1)))
    assert still.reason is TerminationReason.HEARTBEAT_LOST
    assert starting.decide(view(since=ago(900), deaf_until=ago(60))).state is RunState.STARTING


def test_a_stopped_attempt_is_done_at_its_last_word_and_a_success_stays_one() -> None:
    preempted = Outcome(reason=TerminationReason.PREEMPTED, message="saved")
    cancelled = {"stop_reason": TerminationReason.CANCELLED, "cancel_requested": True}
    assert stopping.decide(view(outcome=preempted, **cancelled)).reason is TerminationReason.CANCELLED
    succeeded = Outcome(reason=TerminationReason.SUCCEEDED)
    lost = view(outcome=succeeded, stop_reason=TerminationReason.HEARTBEAT_LOST)
    assert stopping.decide(lost).reason is TerminationReason.SUCCEEDED
    assert stopping.decide(view(outcome=succeeded, **cancelled)).reason is TerminationReason.CANCELLED


def test_death_without_a_word_is_told_from_an_outcome_on_its_way() -> None:
    just_now = view(ray=RayStatus.ENDED, heartbeat_at=ago(1), since=ago(60))
    assert running.decide(just_now).state is RunState.RUNNING
    gone = view(ray=RayStatus.ENDED, heartbeat_at=ago(running.OUTCOME_GRACE_SECONDS + 1), since=ago(60))
    assert running.decide(gone).reason is TerminationReason.INFRASTRUCTURE


@pytest.mark.parametrize("reason", list(TerminationReason))
def test_retry_is_a_function_of_the_reason(reason: TerminationReason) -> None:
    outcome = Outcome(reason=reason, message="so it ended")
    first = running.decide(view(outcome=outcome, heartbeat_at=NOW))
    last = running.decide(view(outcome=outcome, heartbeat_at=NOW, num_attempts=3))
    assert first.state is (RunState.PENDING if reason.is_retried else RunState.DONE)
    assert last.state is (RunState.PENDING if reason.is_free else RunState.DONE)
    assert first.reason is last.reason is reason
    assert (first.retry_after == 0) is reason.is_free


def test_how_often_and_how_soon_is_the_jobs_word() -> None:
    policy = RetryPolicy(max_attempts=4, backoff_seconds=2)
    lost = {"outcome": Outcome(reason=TerminationReason.INFRASTRUCTURE), "heartbeat_at": NOW, "retry": policy}
    assert [running.decide(view(**lost, num_attempts=n)).retry_after for n in (1, 2, 3)] == [2, 12, 72]
    assert running.decide(view(**lost, num_attempts=4)).state is RunState.DONE


@pytest.mark.parametrize("state", list(DECIDERS))
def test_cancel_works_in_every_state(state: str) -> None:
    decided = DECIDERS[state].decide(
        view(cancel_requested=True, heartbeat_at=NOW, stop_reason=TerminationReason.CANCELLED)
    )
    assert decided.state in (RunState.DONE, RunState.STOPPING)


def test_a_stopped_attempt_ends_for_the_reason_it_was_stopped_for() -> None:
    stopped = view(ray=RayStatus.ENDED, stop_reason=TerminationReason.CANCELLED, cancel_requested=True)
    assert stopping.decide(stopped).reason is TerminationReason.CANCELLED
    assert stopping.decide(view(stop_reason=TerminationReason.HEARTBEAT_LOST)).stop


def test_stopping_has_a_maximum_age() -> None:
    stuck = view(since=ago(stopping.MAX_SECONDS + 1), ray=RayStatus.UNKNOWN, stop_reason=TerminationReason.CANCELLED)
    assert stopping.decide(stuck).state is RunState.DONE


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_pause_stops_what_runs_and_lets_it_wait(state: str) -> None:
    asked = DECIDERS[state].decide(view(pause_requested=True, heartbeat_at=NOW if state == "running" else None))
    assert (asked.state, asked.reason, asked.stop) == (RunState.STOPPING, TerminationReason.PAUSED, True)
    saved = {"outcome": Outcome(reason=TerminationReason.PREEMPTED), "stop_reason": TerminationReason.PAUSED}
    stopped = stopping.decide(view(pause_requested=True, **saved))
    assert (stopped.state, stopped.reason, stopped.retry_after) == (RunState.PENDING, TerminationReason.PAUSED, 0)
    waits = pending.decide(view(pause_requested=True, admitted=True))
    assert waits.state is RunState.PENDING and waits.wait is not None and waits.wait.code == "paused"


def test_a_cancel_ends_a_pause_under_way() -> None:
    both = view(pause_requested=True, cancel_requested=True, stop_reason=TerminationReason.PAUSED, ray=RayStatus.ENDED)
    assert stopping.decide(both).reason is TerminationReason.CANCELLED
    assert pending.decide(both).reason is TerminationReason.CANCELLED
