"""What routes are given: a session, the object store, the settings, and a caller who may do what the route does.

What only looks something up is ``async``: it needs no thread of the pool.

Every route takes a caller by a rule, ``caller: Annotated[Caller, Allow(Permission.JOBS_READ)]`` in effect: a test walks
the router and fails for a route without one.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session, sessionmaker
from starlette.datastructures import Headers

from ibllm_core.storage import ObjectStore
from orchestrator.errors import RateLimitError
from orchestrator.jobs.prepare import Shop
from orchestrator.settings import ServiceSettings
from orchestrator.tenants.access import Caller, Permission
from orchestrator.tenants.authentication import Shown, authenticate
from orchestrator.tenants.rate_limit import RateLimiter


def bearer_of(authorization: str | None) -> str:
    """The token of an ``Authorization: Bearer`` header, or an empty string."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _session(request: Request) -> AsyncIterator[Session]:
    """A session, which takes a connection when it is first used."""
    session: Session = request.app.state.sessions()
    try:
        yield session
    finally:
        if session.in_transaction():
            await run_in_threadpool(session.close)
        else:
            session.close()


async def _store(request: Request) -> ObjectStore:
    store: ObjectStore = request.app.state.store
    return store


async def _shop(request: Request) -> Shop:
    shop: Shop = request.app.state.shop
    return shop


async def _settings(request: Request) -> ServiceSettings:
    settings: ServiceSettings = request.app.state.settings
    return settings


SessionOf = Annotated[Session, Depends(_session)]
StoreOf = Annotated[ObjectStore, Depends(_store)]
ShopOf = Annotated[Shop, Depends(_shop)]
SettingsOf = Annotated[ServiceSettings, Depends(_settings)]


def check_key(sessions: sessionmaker[Session], headers: Headers) -> None:
    """``AuthenticationError`` for headers without a good key."""
    with sessions() as session:
        authenticate(session, _shown(headers))


def _shown(headers: Headers, address: str = "", request_id: str = "") -> Shown:
    return Shown(
        token=bearer_of(headers.get("authorization")),
        organization=headers.get("openai-organization"),
        project=headers.get("openai-project"),
        address=address,
        request_id=request_id,
    )


class Allow:
    """A dependency: the caller, once it is known that it has a permission and has not asked too often."""

    def __init__(self, permission: Permission | None) -> None:
        """``permission`` None lets every good key pass."""
        self.permission = permission

    def __call__(self, request: Request, session: SessionOf) -> Caller:
        """Raises ``AuthenticationError``, ``PermissionDeniedError`` or ``RateLimitError``."""
        caller = self.known(request, session)
        if self.permission is not None:
            caller.require(self.permission)
        return caller

    def known(self, request: Request, session: Session) -> Caller:
        """Whose key it is, who has not asked too often; what they may do is not looked at."""
        address = request.client.host if request.client else ""
        caller = authenticate(session, _shown(request.headers, address, request.scope["state"]["request_id"]))
        self._limit(request.app.state.limiter, caller)
        return caller

    @staticmethod
    def _limit(limiter: RateLimiter, caller: Caller) -> None:
        if caller.requests_per_minute is None:
            return
        wait = limiter.take(caller.project_id or caller.organization_id, caller.requests_per_minute)
        if wait:
            raise RateLimitError(
                f"this project may send {caller.requests_per_minute} requests a minute: "
                f"try again in {math.ceil(wait)} s",
                retry_after=wait,
            )


FilesReader = Annotated[Caller, Depends(Allow(Permission.FILES_READ))]
FilesWriter = Annotated[Caller, Depends(Allow(Permission.FILES_WRITE))]
JobsReader = Annotated[Caller, Depends(Allow(Permission.JOBS_READ))]
JobsWriter = Annotated[Caller, Depends(Allow(Permission.JOBS_WRITE))]
ModelsReader = Annotated[Caller, Depends(Allow(Permission.MODELS_READ))]
ModelsUser = Annotated[Caller, Depends(Allow(Permission.MODELS_USE))]
ModelsWriter = Annotated[Caller, Depends(Allow(Permission.MODELS_WRITE))]
ClusterReader = Annotated[Caller, Depends(Allow(Permission.CLUSTER_READ))]
ProjectReader = Annotated[Caller, Depends(Allow(Permission.PROJECT_READ))]
ProjectWriter = Annotated[Caller, Depends(Allow(Permission.PROJECT_WRITE))]
