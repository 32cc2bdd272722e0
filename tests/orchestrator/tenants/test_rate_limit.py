"""A minute's requests at once, and then evenly."""

from __future__ import annotations

import threading

import pytest

from orchestrator.tenants.rate_limit import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> RateLimiter:
    return RateLimiter(clock)


def take_all(limiter: RateLimiter, name: str, per_minute: int) -> int:
    """How many requests are let through at this moment."""
    count = 0
    while limiter.take(name, per_minute) == 0:
        count += 1
    return count


def test_a_minutes_requests_come_through_at_once(limiter: RateLimiter) -> None:
    assert take_all(limiter, "a", 5) == 5


def test_the_wait_is_exact(limiter: RateLimiter, clock: Clock) -> None:
    take_all(limiter, "a", 6)
    wait = limiter.take("a", 6)
    assert wait == pytest.approx(10)
    clock.now += wait - 0.1
    assert limiter.take("a", 6) == pytest.approx(0.1)
    clock.now += 0.2
    assert limiter.take("a", 6) == 0


@pytest.mark.parametrize(("seconds", "count"), [(9, 0), (10, 1), (35, 3), (60, 6), (10**6, 6)])
def test_requests_come_back_evenly_up_to_a_minutes(
    limiter: RateLimiter, clock: Clock, seconds: float, count: int
) -> None:
    take_all(limiter, "a", 6)
    clock.now += seconds + 0.001
    assert take_all(limiter, "a", 6) == count


def test_projects_do_not_share(limiter: RateLimiter) -> None:
    take_all(limiter, "a", 3)
    assert take_all(limiter, "b", 3) == 3


def test_a_new_limit_counts_from_the_next_request(limiter: RateLimiter, clock: Clock) -> None:
    take_all(limiter, "a", 2)
    clock.now += 1.001
    assert take_all(limiter, "a", 120) == 2
    clock.now += 60
    assert take_all(limiter, "a", 3) == 3


def test_threads_together_get_no_more(limiter: RateLimiter) -> None:
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(take_all(limiter, "a", 1000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 1000


def test_full_buckets_are_forgotten(limiter: RateLimiter, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.tenants.rate_limit.MAX_BUCKETS", 10)
    for number in range(20):
        limiter.take(f"project {number}", 1)
    clock.now += 61
    limiter.take("one more", 1)
    assert len(limiter._buckets) == 1
