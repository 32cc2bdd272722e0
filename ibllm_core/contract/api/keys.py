"""Keys as the API shows them: OpenAI's objects, with scopes and rotation beside."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ibllm_core.contract.api.access import LAST_SECOND, KeySeconds, Name, Permission, Role, Scopes
from ibllm_core.contract.base import Contract


class KeyCreate(Contract):
    """A key for a member of the project, by default for oneself, that does at most what the scopes say."""

    name: Name
    user_id: Annotated[str, Field(max_length=100)] | None = None
    scopes: Scopes | None = Field(None, description="null allows all that the user's role allows")
    expires_in_seconds: KeySeconds | None = None
    expires_at: int | None = Field(None, ge=0, le=LAST_SECOND)


class KeyUpdate(Contract):
    """What is left out stays as it is; no scopes are all that the user's role allows, as OpenAI has it."""

    scopes: Annotated[list[Permission], Field(max_length=len(Permission))] | None = None
    expires_in_seconds: KeySeconds | None = None


class KeyRotate(Contract):
    """How long the old key goes on working beside the new one, which lives as long as the old one was to."""

    grace_seconds: int = Field(0, ge=0, le=30 * 86_400)


class KeyUser(Contract):
    """Whose key it is."""

    id: str
    name: str
    email: str | None = None
    role: Role | None = Field(description="null for who is no member any more")
    created_at: int


class KeyOwner(Contract):
    """A person's key has ``user``, a program's ``service_account``."""

    type: Literal["user", "service_account"]
    user: KeyUser | None = None
    service_account: KeyUser | None = None


class ShownKey(Contract):
    """A key of a project; its value was shown when it was made."""

    id: str
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    scopes: list[str] | None
    owner: KeyOwner
    owner_project_access: Literal["active", "inactive"]


class NewKey(ShownKey):
    """A key that was just made; ``value`` is shown this once."""

    value: str


class AdminKeyCreate(Contract):
    """A key of oneself for the organisation, without a project."""

    name: Name
    scopes: Scopes | None = None
    expires_in_seconds: KeySeconds | None = None


class AdminKeyOwner(Contract):
    """The owner of the organisation whose key it is."""

    id: str
    object: Literal["organization.user"] = "organization.user"
    type: Literal["user"] = "user"
    name: str
    role: Literal["owner", "reader"]
    created_at: int


class ShownAdminKey(Contract):
    """A key of an organisation."""

    id: str
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    scopes: list[str] | None
    owner: AdminKeyOwner


class NewAdminKey(ShownAdminKey):
    """A key of an organisation that was just made; ``value`` is shown this once."""

    value: str
