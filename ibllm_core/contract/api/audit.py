"""The audit log as the API shows it: OpenAI's entries, with the target, the address and the request beside."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ibllm_core.contract.api.access import Named
from ibllm_core.contract.base import Contract


class AuditUser(Contract):
    """Whose key it was."""

    id: str
    email: str | None


class AuditServiceAccount(Contract):
    """Which program's key it was."""

    id: str


class AuditKey(Contract):
    """The key that was shown."""

    id: str
    type: Literal["user", "service_account"]
    user: AuditUser | None = None
    service_account: AuditServiceAccount | None = None


class AuditActor(Contract):
    """Who did it."""

    type: Literal["api_key"] = "api_key"
    api_key: AuditKey
    ip_address: str


class AuditDetails(Contract):
    """What was done, under the entry's type: how the thing was made, or what was to change."""

    id: str
    data: dict[str, Any] | None = None
    changes_requested: dict[str, Any] | None = None


class ShownAuditEntry(Contract):
    """Who did what to which thing; details stand under a key that is the entry's ``type``, as ``project.created``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, AuditDetails] = Field(init=False)

    id: str
    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: str
    effective_at: int
    actor: AuditActor
    project: Named | None
    target: str
    request_id: str
