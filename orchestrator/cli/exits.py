"""Exit statuses, and what is said of an error; docs/cli.md lists them."""

from __future__ import annotations

from enum import IntEnum

import typer
from pydantic import ValidationError

from orchestrator.cli.address import NoServiceError
from orchestrator.cli.problems import problems_of
from orchestrator.cli.profiles import ProfileError
from orchestrator.cli.screen import say_error
from orchestrator.cli.spec import SpecError
from orchestrator.client import (
    AuthenticationError,
    ClientError,
    NotFoundError,
    NotReachableError,
    PermissionDeniedError,
)
from orchestrator.client.errors import ServiceError
from orchestrator.demo.packages import PackageError
from orchestrator.local.errors import StackError


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_REACHABLE = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    INTERRUPTED = 130


STATUS: dict[type[Exception], Exit] = {
    NotReachableError: Exit.NOT_REACHABLE,
    NoServiceError: Exit.NOT_REACHABLE,
    AuthenticationError: Exit.NOT_ALLOWED,
    PermissionDeniedError: Exit.NOT_ALLOWED,
    NotFoundError: Exit.NOT_FOUND,
    SpecError: Exit.USAGE,
    ClientError: Exit.FAILED,
    StackError: Exit.FAILED,
    PackageError: Exit.FAILED,
    ProfileError: Exit.FAILED,
    OSError: Exit.FAILED,
}


def explain(error: Exception) -> int:
    """Say what went wrong, and return the exit status; what is none of the user's mistakes is raised again."""
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's own usage errors
        error.show()
        return int(error.exit_code)
    if isinstance(error, typer.Abort):
        say_error("nothing was entered")
        return Exit.FAILED
    if isinstance(error, ValidationError):
        say_error("\n".join(problems_of(error)))
        return Exit.USAGE
    for kind, status in STATUS.items():
        if isinstance(error, kind):
            say_error(_sentence(error))
            return status
    raise error


def _sentence(error: Exception) -> str:
    if isinstance(error, ServiceError) and error.status >= 500 and error.request_id:
        return f"{error} (request {error.request_id})"
    return str(error)
