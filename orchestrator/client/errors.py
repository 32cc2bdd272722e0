"""What can go wrong between a program and the service, by what the program can do about it."""

from __future__ import annotations

from typing import Any

import httpx

MAX_SHOWN = 300  # characters of an answer that is not the service's


class ClientError(Exception):
    """Base; the message is a sentence that names the remedy."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class NotReachableError(ClientError):
    """Nothing answers at the address, or the answer broke off."""


class UnexpectedAnswerError(ClientError):
    """Something answers, but not as this contract has it."""


class FileRefusedError(ClientError):
    """The service has the file, and its check found that a job would refuse it."""


class ServiceError(ClientError):
    """The service refused. ``code`` is stable, ``param`` the field at fault, ``request_id`` what to ask by."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 500,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id


class InvalidRequestError(ServiceError):
    """The request is wrong; sending it again changes nothing."""


class AuthenticationError(ServiceError):
    """No key, or one that is wrong, revoked or expired."""


class PermissionDeniedError(ServiceError):
    """The key may not do this."""


class NotFoundError(ServiceError):
    """There is no such thing in this project."""


class ConflictError(ServiceError):
    """The state of the thing does not allow it."""


class RateLimitError(ServiceError):
    """Too many requests, or a quota is used up; ``code`` tells which."""


class ServerError(ServiceError):
    """The service failed; it may be well in a moment."""


TEMPORARY = (NotReachableError, RateLimitError, ServerError)
_BY_STATUS: dict[int, type[ServiceError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}


def error_of(response: httpx.Response) -> ServiceError:
    """The error of an answer that is not a success and whose body was read."""
    detail = _detail_of(response)
    kind = _BY_STATUS.get(response.status_code, ServerError if response.status_code >= 500 else InvalidRequestError)
    return kind(
        str(detail.get("message") or _words_for(response)),
        status=response.status_code,
        code=detail.get("code"),
        param=detail.get("param"),
        request_id=response.headers.get("x-request-id"),
    )


def error_in_stream(detail: dict[str, Any], response: httpx.Response) -> ServiceError:
    """An error that came after a streamed answer had begun."""
    return ServerError(
        str(detail.get("message")),
        status=response.status_code,
        code=detail.get("code"),
        param=detail.get("param"),
        request_id=response.headers.get("x-request-id"),
    )


def _detail_of(response: httpx.Response) -> dict[str, Any]:
    try:
        detail = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return detail if isinstance(detail, dict) else {}


def _words_for(response: httpx.Response) -> str:
    if response.has_redirect_location:
        return f"{response.url} has moved to {response.headers['location']}: give that address"
    shown = " ".join(response.text.split())[:MAX_SHOWN]
    return f"{response.url} answered {response.status_code}, not as an ibllm service does: {shown or 'nothing'}"
