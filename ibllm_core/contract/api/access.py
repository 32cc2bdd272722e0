"""Words of who may do what, which projects, users and keys share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ibllm_core.contract.base import Contract

LAST_SECOND = 253_402_300_798  # of the year 9999, less one, so that it can be added to
MAX_KEY_SECONDS = 10 * 366 * 86_400
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Email = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")
]
KeySeconds = Annotated[int, Field(ge=1, le=MAX_KEY_SECONDS)]


class Permission(StrEnum):
    """What a route asks for; the scopes of a key have the same names."""

    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    MODELS_READ = "models:read"
    MODELS_USE = "models:use"
    MODELS_WRITE = "models:write"
    CLUSTER_READ = "cluster:read"
    PROJECT_READ = "project:read"
    PROJECT_WRITE = "project:write"
    ORGANIZATION_READ = "organization:read"
    ORGANIZATION_WRITE = "organization:write"
    INSTALLATION = "installation:write"


class Role(StrEnum):
    """What a user is in a project; owners and the operator are so in all of them."""

    READER = "reader"
    SUBMITTER = "submitter"
    ADMIN = "admin"
    OWNER = "owner"
    OPERATOR = "operator"


MemberRole = Literal["reader", "submitter", "admin", "member", "owner"]
Scopes = Annotated[list[Permission], Field(min_length=1, max_length=len(Permission))]


class Named(Contract):
    """A thing and what people call it."""

    id: str
    name: str


class Me(Contract):
    """Whose key a request shows, and what it may do."""

    object: Literal["caller"] = "caller"
    organization: Named
    project: Named | None
    user: Named
    key: Named
    role: Role
    scopes: list[str] | None
    permissions: list[Permission]
    expires_at: int | None
