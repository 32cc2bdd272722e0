"""The service's error tree; HTTP answers carry them in OpenAI's shape."""

from __future__ import annotations

import math


class ServiceError(Exception):
    """Base: an HTTP status, a type and a stable code; the message names the remedy."""

    status = 500
    type = "server_error"
    code = "internal_error"
    may_be_retried = True  # clients try 408, 409, 429 and 5xx again on their own, unless told not to

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code:
            self.code = code

    @property
    def headers(self) -> dict[str, str]:
        """What OpenAI's clients read beside the body: when to try again, and when never to."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(math.ceil(self.retry_after))
        if not self.may_be_retried:
            headers["x-should-retry"] = "false"
        return headers


class InvalidRequestError(ServiceError):
    """The request is wrong; sending it again changes nothing."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class AuthenticationError(ServiceError):
    """No key, or a wrong one."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionDeniedError(ServiceError):
    """The key is good, but may not do this."""

    status = 403
    type = "permission_error"
    code = "insufficient_permissions"


class NotFoundError(ServiceError):
    """There is no such thing, or none that the caller may see."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ConflictError(ServiceError):
    """The state of the thing does not allow it."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"
    may_be_retried = False


class RequestTimeoutError(ServiceError):
    """The client stopped sending in the middle of its request."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class PayloadTooLargeError(ServiceError):
    """More bytes than the service takes in one request."""

    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class MediaTypeError(ServiceError):
    """The body is not of the type that the route reads."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimitError(ServiceError):
    """Too many requests in a short time; later it will do."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QuotaError(ServiceError):
    """The project has used what it may; waiting a moment changes nothing."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    may_be_retried = False


class UnavailableError(ServiceError):
    """A part of the service is away for now."""

    status = 503
    code = "unavailable"


class ClusterUnreachableError(ServiceError):
    """Ray does not answer; the scheduler tries again."""

    status = 503
    code = "cluster_unreachable"


class RegistryUnreachableError(ServiceError):
    """MLflow does not answer; the scheduler tries again."""

    status = 503
    code = "registry_unreachable"


class RegistryRefusedError(ServiceError):
    """MLflow will not take it, however often it is asked."""

    status = 502
    code = "registry_refused"
