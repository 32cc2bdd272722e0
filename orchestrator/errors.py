"""The service's error tree; HTTP answers carry them in OpenAI's shape."""

from __future__ import annotations


class ServiceError(Exception):
    """Base: an HTTP status, a type and a stable code; the message names the remedy."""

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code:
            self.code = code


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
