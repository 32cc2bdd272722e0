"""Shapes that all resources of the HTTP API share."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, StringConstraints

from ibllm_core.contract.base import Contract

Item = TypeVar("Item")
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]


class Page(Contract, Generic[Item]):
    """A page of a list; the next one begins ``after`` the last item's id."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ErrorDetail(Contract):
    """What went wrong: ``code`` is stable, ``param`` is the field, ``message`` names the remedy."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Contract):
    """Every answer that is not a success."""

    error: ErrorDetail


class Deleted(Contract):
    """That something is gone."""

    id: str
    object: str
    deleted: bool = True
