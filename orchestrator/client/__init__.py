"""A thin, typed client of the service on httpx."""

from orchestrator.client.client import Client
from orchestrator.client.errors import (
    AuthenticationError,
    ClientError,
    ConflictError,
    FileRefusedError,
    InvalidRequestError,
    NotFoundError,
    NotReachableError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    ServiceError,
    UnexpectedAnswerError,
)

__all__ = [
    "AuthenticationError",
    "Client",
    "ClientError",
    "ConflictError",
    "FileRefusedError",
    "InvalidRequestError",
    "NotFoundError",
    "NotReachableError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    "ServiceError",
    "UnexpectedAnswerError",
]
