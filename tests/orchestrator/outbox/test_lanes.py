"""A lane has one message under way, and rests after failures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.outbox.backoff import Backoff
from orchestrator.outbox.lanes import Lanes


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def closed(lanes: Lanes) -> list[str]:
    with lanes.choosing() as found:
        return found


def fail(lanes: Lanes, lane: str) -> None:
    lanes.enter(lane)
    lanes.leave(lane, has_failed=True)


def test_a_lane_is_closed_while_a_message_is_under_way() -> None:
    lanes = Lanes(Backoff(first=1, longest=10), Clock())
    lanes.enter("a")
    assert closed(lanes) == ["a"]
    lanes.leave("a", has_failed=False)
    assert closed(lanes) == []


def test_a_lane_rests_longer_with_each_failure_and_forgets_them_with_a_success() -> None:
    clock = Clock()
    lanes = Lanes(Backoff(first=10, longest=1000), clock)
    for longest in (12.5, 25.0, 50.0):
        fail(lanes, "a")
        clock.now += longest * 0.59  # less than the shortest rest
        assert closed(lanes) == ["a"]
        clock.now += longest * 0.41
        assert closed(lanes) == []
    lanes.enter("a")
    lanes.leave("a", has_failed=False)
    fail(lanes, "a")
    clock.now += 12.5
    assert closed(lanes) == []


def test_messages_without_a_lane_close_none() -> None:
    lanes = Lanes(Backoff(first=10, longest=1000), Clock())
    lanes.enter(None)
    lanes.leave(None, has_failed=True)
    assert closed(lanes) == []


@given(first=st.floats(0.1, 100), ratio=st.floats(1, 1000), failures=st.integers(1, 10**6), chance=st.floats(0, 0.999))
def test_waits_double_within_a_quarter_up_to_the_longest(
    first: float, ratio: float, failures: int, chance: float
) -> None:
    backoff = Backoff(first=first, longest=first * ratio)
    plain = min(first * ratio, first * 2.0 ** min(failures - 1, 1000))
    assert 0.75 * plain * 0.999 <= backoff.seconds(failures, chance) <= 1.25 * plain
