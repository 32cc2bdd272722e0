"""Answers as the contract's models, also those of a service that is newer than this client."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.client.errors import UnexpectedAnswerError

Shape = TypeVar("Shape", bound=BaseModel)


def parse(shape: type[Shape], data: Any) -> Shape:
    """``data`` as the model ``shape``, without the keys that it does not know; ``UnexpectedAnswerError`` if it is none.

    What is known exactly is parsed exactly: models that keep keys of their users lose them in the second try.
    """
    try:
        return shape.model_validate(data)
    except ValidationError:
        try:
            return shape.model_validate(data, extra="ignore")
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"])) or "the answer"
            raise UnexpectedAnswerError(
                f"the service answered with a {shape.__name__} that this client cannot read ({place}: "
                f"{problem['msg']}): install the client of the service's version"
            ) from error
