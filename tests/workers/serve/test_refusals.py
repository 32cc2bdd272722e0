import pytest

from ibllm_core.errors import (
    BaseMismatchError,
    CoreError,
    IntegrityError,
    InvalidDataError,
    InvalidPromptError,
    ObjectMissingError,
)
from workers.serve.refusals import Refusal, of_load, of_request


def shown(refusal: Refusal) -> tuple[int, str, str | None]:
    error = refusal.body["error"]
    return refusal.status, error["code"], error["param"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidPromptError("it is empty"), (400, "invalid_prompt", "messages")),
        (InvalidPromptError("too long", code="context_length_exceeded"), (400, "context_length_exceeded", "messages")),
        (InvalidDataError("no picture", param="messages[0]"), (400, "invalid_data", "messages[0]")),
        (IntegrityError("the weights are broken"), (503, "integrity", None)),
        (MemoryError(), (503, "out_of_memory", None)),
    ],
)
def test_a_request_is_refused_by_what_can_be_done_about_it(error: Exception, expected: tuple[int, str, str]) -> None:
    assert shown(of_request(error)) == expected


def test_a_defect_is_no_refusal() -> None:
    with pytest.raises(KeyError):
        of_request(KeyError("x"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ObjectMissingError("the object store has no models/m"), (404, "model_not_found", None)),
        (BaseMismatchError("another base"), (500, "base_mismatch", None)),
    ],
)
def test_a_model_that_cannot_be_loaded_is_not_the_requests_fault(
    error: CoreError, expected: tuple[int, str, None]
) -> None:
    assert shown(of_load(error)) == expected


def test_clients_do_not_try_again_what_cannot_be_loaded() -> None:
    assert of_load(BaseMismatchError("another base")).headers == {"x-should-retry": "false"}
    assert of_load(IntegrityError("broken")).headers == {"retry-after": "5"}
