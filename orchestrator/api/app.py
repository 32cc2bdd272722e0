"""The HTTP application: routers, errors in OpenAI's shape, a request id on every answer."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

from ibllm_core.errors import StorageError
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from orchestrator.api import cluster, files, internal, jobs, models
from orchestrator.db.session import connect, session_factory
from orchestrator.errors import InvalidRequestError, NotFoundError, ServiceError
from orchestrator.ids import new_id
from orchestrator.settings import ServiceSettings

log = logging.getLogger(__name__)


def create_app() -> FastAPI:
    """Build the application from ``IBLLM_…`` settings; connects lazily."""
    settings = ServiceSettings()
    app = FastAPI(title="ibllm", version="0.1.0", docs_url="/docs", redoc_url=None)
    app.state.settings = settings
    app.state.sessions = session_factory(connect(settings.database_url))
    app.state.store = ObjectStore(StorageSettings())
    for router in (files.router, jobs.router, models.router, cluster.router):
        app.include_router(router, prefix="/v1")
    app.include_router(internal.router)
    app.get("/health", include_in_schema=False)(_health)
    app.middleware("http")(_with_request_id)
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(StorageError, _storage_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(DataError, _no_text)
    app.add_exception_handler(UnicodeEncodeError, _no_text)
    return app


def _health(request: Request) -> dict[str, str]:
    with request.app.state.sessions() as session:
        session.execute(text("SELECT 1"))
    return {"status": "ok"}


async def _with_request_id(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["x-request-id"] = new_id("req")
    return response


def error_response(error: ServiceError) -> JSONResponse:
    """An error as OpenAI's clients read it; a conflict must not be retried, which they would do on their own."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    headers = {"x-should-retry": "false"} if error.status == 409 else None
    return JSONResponse({"error": body}, status_code=error.status, headers=headers)


def _service_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return error_response(error)


def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    """All problems of a request at once, each with its path."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    paths = [".".join(str(part) for part in problem["loc"][1:]) for problem in problems]
    lines = [f"{path or 'body'}: {_sentence(problem)}" for path, problem in zip(paths, problems, strict=True)]
    return error_response(InvalidRequestError("; ".join(lines), param=paths[0] or None))


def _sentence(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    shown = "" if problem["type"] in ("missing", "value_error") else f" (got {problem.get('input')!r:.80})"
    return message + shown


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(NotFoundError(f"there is no {request.method} {request.url.path}; see /docs"))
    wrapped = InvalidRequestError(str(error.detail))
    wrapped.status = error.status_code
    return error_response(wrapped)


def _storage_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StorageError)
    log.error("%s", error.message)
    wrapped = ServiceError(f"{error.message}; try again in a moment", code=error.code)
    wrapped.status = 503
    return error_response(wrapped)


def _database_error(_request: Request, error: Exception) -> JSONResponse:
    log.error("%s", error)
    wrapped = ServiceError("the database does not answer; try again in a moment", code="database_unavailable")
    wrapped.status = 503
    return error_response(wrapped)


def _no_text(_request: Request, _error: Exception) -> JSONResponse:
    """JSON and URLs can spell characters that PostgreSQL stores in no column."""
    return error_response(InvalidRequestError("the request holds a NUL character or half a surrogate pair: remove it"))
