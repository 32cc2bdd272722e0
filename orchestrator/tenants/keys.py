"""API keys: made, hashed, and known again."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from orchestrator.db.models import ApiKey
from orchestrator.ids import new_id

PREFIX = "sk-ib-"
SHOWN = 4


def new_key(
    *,
    organization_id: str,
    project_id: str | None,
    user_id: str,
    name: str,
    scopes: list[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A key to be stored, and its secret, which is told once."""
    secret = new_secret()
    key = ApiKey(
        id=new_id("key"),
        organization_id=organization_id,
        project_id=project_id,
        user_id=user_id,
        name=name,
        sha256=hash_of(secret),
        hint=hint_of(secret),
        scopes=scopes,
        expires_at=expires_at,
    )
    return key, secret


def new_secret() -> str:
    """A key with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """What is stored of a key. It is random and long, so that a plain hash cannot be searched backwards."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hint_of(secret: str) -> str:
    """What people recognise a key by."""
    return f"{secret[: len(PREFIX)]}…{secret[-SHOWN:]}"
