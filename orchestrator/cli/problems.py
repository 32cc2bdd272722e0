"""What does not fit the contract, in words: a line a problem, as the service's own answers have them."""

from __future__ import annotations

from pydantic import ValidationError


def problems_of(error: ValidationError) -> list[str]:
    """Each problem's path and what is wrong there."""
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        message = str(problem["msg"]).removeprefix("Value error, ")
        shown = "" if problem["type"] in ("missing", "value_error") else f" (got {problem.get('input')!r:.80})"
        lines.append(f"{path}: {message}{shown}" if path else message + shown)
    return lines
