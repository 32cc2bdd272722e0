"""The HTTP application: routers, limits before them, errors in OpenAI's shape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import text

from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from orchestrator.api import routers, uploads
from orchestrator.api.dependencies import check_key
from orchestrator.api.errors import STATUSES, add_error_handlers
from orchestrator.api.limits import Limits
from orchestrator.api.live_events import LiveEvents
from orchestrator.api.openapi import DescribedApi, operation_id
from orchestrator.cluster.dashboard import Dashboard
from orchestrator.cluster.settings import RaySettings
from orchestrator.db.session import connect, session_factory
from orchestrator.inference.gateway import Gateway
from orchestrator.inference.settings import ServingSettings
from orchestrator.jobs.attempt_logs import AttemptLogs
from orchestrator.jobs.prepare import shop_of
from orchestrator.settings import ServiceSettings
from orchestrator.tenants.bootstrap import ensure_operator
from orchestrator.tenants.rate_limit import RateLimiter

POOL_SIZE = 20  # and as many more in a rush; the thread pool has forty
FORM_BYTES = 1 << 20  # of a form around its file


def create_app() -> FastAPI:
    """Build the application from ``IBLLM_…`` settings; connects when it starts."""
    settings = ServiceSettings()
    app = DescribedApi(
        title="ibllm",
        version="0.1.0",
        docs_url="/docs",
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=operation_id,
    )
    app.state.settings = settings
    app.state.sessions = session_factory(connect(settings.database_url, pool_size=POOL_SIZE))
    app.state.store = ObjectStore(StorageSettings())
    app.state.limiter = RateLimiter()
    app.state.shop = shop_of(settings, app.state.store)
    app.state.live_events = LiveEvents(app.state.sessions)
    app.state.attempt_logs = AttemptLogs(app.state.sessions, app.state.store, Dashboard(RaySettings()))
    for router in routers.PUBLIC:
        app.include_router(router, prefix="/v1", responses=STATUSES)
    app.include_router(routers.INTERNAL)
    app.get("/health", include_in_schema=False)(_health)
    app.add_middleware(
        Limits,
        max_form_bytes=max(settings.max_file_mb << 20, uploads.MAX_PART_BYTES) + FORM_BYTES,
        check_key=partial(check_key, app.state.sessions),
    )
    add_error_handlers(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    await run_in_threadpool(_ensure_operator, app)
    app.state.gateway = Gateway(ServingSettings(), RaySettings())
    yield
    await app.state.gateway.aclose()


def _ensure_operator(app: FastAPI) -> None:
    with app.state.sessions() as session:
        ensure_operator(session, app.state.settings.api_key)


def _health(request: Request) -> dict[str, str]:
    with request.app.state.sessions() as session:
        session.execute(text("SELECT 1"))
    return {"status": "ok"}
