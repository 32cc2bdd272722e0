from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from orchestrator.client.errors import NotReachableError
from orchestrator.client.retry import BACKOFF, LONGEST_WAIT, Failure, Patience, wait_before_retry


def wait(failure: Failure, *, tries: int = 1, is_repeatable: bool = True) -> float | None:
    return wait_before_retry(failure, tries=tries, is_repeatable=is_repeatable)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_be_well_in_a_moment_is_tried_again(status: int) -> None:
    assert wait(Failure(status=status)) is not None


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 408, 409, 413, 422])
def test_what_stays_wrong_is_not(status: int) -> None:
    assert wait(Failure(status=status)) is None


def test_what_may_have_been_done_is_done_again_only_where_that_does_no_harm() -> None:
    lost = Failure(status=None)
    assert wait(lost) is not None and wait(lost, is_repeatable=False) is None
    assert wait(Failure(status=None, was_sent=False), is_repeatable=False) is not None
    assert wait(Failure(status=502), is_repeatable=False) is None
    assert wait(Failure(status=503), is_repeatable=False) is not None  # it says that nothing was done


def test_the_service_knows_best_whether_another_try_helps() -> None:
    assert wait(Failure(status=429, headers={"x-should-retry": "false"})) is None
    assert wait(Failure(status=409, headers={"x-should-retry": "true"})) is not None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "-7"}, 0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": str(LONGEST_WAIT + 1)}, None),
    ],
)
def test_the_service_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert wait(Failure(status=429, headers=headers)) == seconds


def test_the_service_may_say_it_as_a_date() -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    told = wait(Failure(status=503, headers={"retry-after": until}))
    assert told is not None and 25 < told <= 30


@pytest.mark.parametrize("nonsense", ["soon", "", "nan", "inf"])
def test_without_a_word_the_waits_grow(nonsense: str) -> None:
    waits = [wait(Failure(status=500, headers={"retry-after": nonsense}), tries=tries) for tries in (1, 3, 50)]
    assert waits[0] is not None and waits[1] is not None and waits[2] is not None
    assert waits[0] < waits[1] < waits[2] <= 1.25 * BACKOFF.longest


def test_patience_ends_with_the_error_and_begins_anew_after_a_success() -> None:
    error = NotReachableError("gone")
    patience = Patience(-1.0)
    with pytest.raises(NotReachableError, match="gone"):
        patience.wait(error)
    lenient = Patience(60.0)
    lenient.wait(error)
    lenient.restore()
    lenient.wait(error)
