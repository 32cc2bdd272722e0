"""Who may make, change and revoke which keys. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from orchestrator.db.models import ApiKey
from orchestrator.errors import ConflictError, InvalidRequestError
from orchestrator.tenants.access import GRANTED, Caller, Role
from orchestrator.tenants.bootstrap import OPERATOR_KEY


def check_scopes(caller: Caller, role: Role, scopes: Sequence[str] | None) -> None:
    """Scopes of a key for a user of that role: none that the role lacks, and nothing that the caller may not do."""
    beyond = set(scopes or []) - GRANTED[role]
    if beyond:
        raise InvalidRequestError(
            f"a {role} may not do {', '.join(sorted(beyond))}, whatever the key's scopes: leave these out",
            param="scopes",
        )
    caller.require_to_give(role, scopes)


def require_power_over(caller: Caller, key: ApiKey, role: Role | None) -> None:
    """Nobody changes, or learns anew, a key that may do more than the own; the operator's is a setting."""
    if key.id == OPERATOR_KEY:
        raise ConflictError("this key is the setting IBLLM_API_KEY: change it there and start anew", param="api_key_id")
    if role is not None:
        caller.require_to_give(role, key.scopes)


def ends_at(expires_in_seconds: int | None, expires_at: int | None = None) -> datetime | None:
    """When a key ends, said in one way of two or not at all."""
    now = datetime.now(UTC)
    if expires_in_seconds is not None and expires_at is not None:
        raise InvalidRequestError("give expires_in_seconds or expires_at, one of them", param="expires_at")
    if expires_in_seconds is not None:
        return now + timedelta(seconds=expires_in_seconds)
    if expires_at is None:
        return None
    if expires_at <= now.timestamp():
        raise InvalidRequestError("expires_at lies in the past: give seconds since 1970, UTC", param="expires_at")
    return datetime.fromtimestamp(expires_at, UTC)
