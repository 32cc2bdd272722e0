"""What went wrong with a request, in OpenAI's words: a status, a code, and whether trying again may help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ibllm_core.contract.chat_answer import error_body
from ibllm_core.errors import (
    CoreError,
    InvalidDataError,
    InvalidPromptError,
    InvalidSpecError,
    ObjectMissingError,
    StorageError,
)

THEIRS = (InvalidDataError, InvalidPromptError, InvalidSpecError)
NEVER_AGAIN = {"x-should-retry": "false"}
LATER = {"retry-after": "5"}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An HTTP status, a body in OpenAI's shape, headers that say whether clients should try again."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


UNKNOWN_CALLER = Refusal(
    status=401,
    body=error_body(
        "the model server takes requests of the service alone: send them to its API",
        type="authentication_error",
        code="invalid_api_key",
    ),
)


def of_load(error: Exception) -> Refusal:
    """Why a model cannot be loaded: never the request's fault."""
    if isinstance(error, ObjectMissingError):
        message = f"the model is not there: {error.message}"
        return Refusal(status=404, body=error_body(message, type="invalid_request_error", code="model_not_found"))
    if isinstance(error, CoreError) and not isinstance(error, StorageError):
        message = f"the model cannot be loaded: {error.message}"
        return Refusal(status=500, body=error_body(message, type="server_error", code=error.code), headers=NEVER_AGAIN)
    return of_request(error)


def of_request(error: BaseException) -> Refusal:
    """Why a request cannot be answered; ``error`` itself where the fault is ours and is not known."""
    if isinstance(error, ValidationError):
        return Refusal(status=400, body=error_body(str(error), type="invalid_request_error", code="invalid_request"))
    if isinstance(error, THEIRS):
        code, param = error.fields.get("code", error.code), error.fields.get("param", "messages")
        body = error_body(error.message, type="invalid_request_error", code=code, param=param)
        return Refusal(status=400, body=body)
    if isinstance(error, StorageError):
        message = f"{error.message}: try again in a moment"
        return Refusal(status=503, body=error_body(message, type="server_error", code=error.code), headers=LATER)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        message = "the model server has no memory left for this request: try again later, or ask for fewer tokens"
        return Refusal(status=503, body=error_body(message, type="server_error", code="out_of_memory"), headers=LATER)
    raise error
