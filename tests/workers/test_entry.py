import pickle

import pytest

from ibllm_core.contract.states import TerminationReason
from ibllm_core.errors import InvalidDataError, StorageError
from workers.entry import outcome_of


def wrapped(error: Exception) -> Exception:
    outer = RuntimeError("ray wrapped it")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidDataError("row 3 is bad"), TerminationReason.USER_ERROR),
        (MemoryError(), TerminationReason.OUT_OF_MEMORY),
        (StorageError("S3 is away"), TerminationReason.INFRASTRUCTURE),
        (ValueError("?"), TerminationReason.INFRASTRUCTURE),
    ],
)
def test_an_exception_has_one_reason_however_deep_it_lies(error: Exception, reason: TerminationReason) -> None:
    assert outcome_of(error).reason is reason
    assert outcome_of(wrapped(wrapped(error))).reason is reason


def test_the_users_error_keeps_its_sentence() -> None:
    assert outcome_of(wrapped(InvalidDataError("row 3 is bad"))).message == "row 3 is bad"


def test_failures_of_ray_train_workers_are_searched() -> None:
    error = RuntimeError("training failed")
    error.worker_failures = {1: InvalidDataError("row 3 is bad")}  # type: ignore[attr-defined]
    assert outcome_of(error).reason is TerminationReason.USER_ERROR


def test_core_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(InvalidDataError("row 3 is bad", row=3)))
    assert (type(error), error.message, error.fields) == (InvalidDataError, "row 3 is bad", {"row": 3})
