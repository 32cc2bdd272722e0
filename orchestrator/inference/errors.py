"""What can go wrong between the service and its model server."""

from __future__ import annotations

from typing import Any

from orchestrator.errors import ServiceError


class ModelServerError(ServiceError):
    """The model server is not there, or not well."""

    status = 503
    code = "model_server_unavailable"


class ModelServerBusyError(ServiceError):
    """All replicas are busy, and as many requests wait as may."""

    status = 503
    code = "model_server_busy"


class PassedOnError(ServiceError):
    """An error of the model server, passed on as it is."""

    def __init__(self, status: int, error: dict[str, Any], headers: dict[str, str]) -> None:
        retry_after = headers.get("retry-after")
        super().__init__(
            str(error.get("message", "")),
            param=error.get("param"),
            code=error.get("code"),
            retry_after=float(retry_after) if retry_after else None,
        )
        self.status = status
        self.type = str(error.get("type", self.type))
        self.may_be_retried = headers.get("x-should-retry") != "false"
