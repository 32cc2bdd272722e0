"""What routes are given: a session, the object store, the settings, and a caller with a valid key."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session

from ibllm_core.storage import ObjectStore
from orchestrator.errors import AuthenticationError
from orchestrator.settings import ServiceSettings


def bearer_of(authorization: str | None) -> str:
    """The token of an ``Authorization: Bearer`` header, or an empty string."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def require_key(request: Request, authorization: Annotated[str | None, Header()] = None) -> None:
    """Let only the service's key pass."""
    if not secrets.compare_digest(bearer_of(authorization).encode(), request.app.state.settings.api_key.encode()):
        raise AuthenticationError("the API key is missing or wrong: send `Authorization: Bearer <key>`")


def _session(request: Request) -> Iterator[Session]:
    with request.app.state.sessions() as session:
        yield session


def _store(request: Request) -> ObjectStore:
    store: ObjectStore = request.app.state.store
    return store


def _settings(request: Request) -> ServiceSettings:
    settings: ServiceSettings = request.app.state.settings
    return settings


SessionOf = Annotated[Session, Depends(_session)]
StoreOf = Annotated[ObjectStore, Depends(_store)]
SettingsOf = Annotated[ServiceSettings, Depends(_settings)]
