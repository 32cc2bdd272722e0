"""Parts make a file only where they are its own, large enough, named once, and all of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ibllm_core.storage import MIN_PART_BYTES
from orchestrator.db.models import Upload
from orchestrator.errors import ConflictError, InvalidRequestError
from orchestrator.files.uploading import check_parts, require_pending, status_of

STORED = {"part-a": MIN_PART_BYTES, "part-b": MIN_PART_BYTES + 7, "part-c": 1}


def upload(num_bytes: int = 1, status: str = "pending", minutes_left: float = 60) -> Upload:
    expires_at = datetime.now(UTC) + timedelta(minutes=minutes_left)
    return Upload(id="upload-1", bytes=num_bytes, status=status, expires_at=expires_at)


@pytest.mark.parametrize("part_ids", [["part-b", "part-a", "part-c"], ["part-a"], ["part-c"], ["part-a", "part-c"]])
def test_parts_in_any_order_and_number_make_up_what_was_announced(part_ids: list[str]) -> None:
    check_parts(upload(sum(STORED[part_id] for part_id in part_ids)), STORED, part_ids)


@pytest.mark.parametrize(
    ("part_ids", "problem"),
    [
        (["part-a", "part-x"], "'part-x' is no part of upload upload-1"),
        (["part-a", "part-a"], "part part-a is named twice"),
        (["part-c", "part-a"], "part part-c has 1 bytes, and all but the last must have at least 5,242,880"),
        (["part-a", "part-b"], "the parts have 10,485,767 bytes together, and 10,485,768 were announced"),
    ],
)
def test_other_parts_are_refused_with_the_field(part_ids: list[str], problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem) as refused:
        check_parts(upload(2 * MIN_PART_BYTES + 8), STORED, part_ids)
    assert refused.value.param == "part_ids"


def test_an_upload_whose_time_is_over_has_expired_though_nobody_noted_it() -> None:
    assert status_of(upload(minutes_left=1)) == "pending"
    assert status_of(upload(minutes_left=-1)) == "expired"
    assert status_of(upload(status="completed", minutes_left=-1)) == "completed"


@pytest.mark.parametrize("status", ["completed", "cancelled", "expired"])
def test_an_upload_that_is_over_does_not_change(status: str) -> None:
    with pytest.raises(ConflictError, match=f"upload upload-1 is {status} and does not change any more"):
        require_pending(upload(status=status))
