"""Whatever goes wrong, in OpenAI's shape."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import DataError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from ibllm_core.contract.api.common import ErrorBody
from ibllm_core.errors import StorageError
from orchestrator.errors import InvalidRequestError, NotFoundError, ServiceError, UnavailableError

log = logging.getLogger(__name__)
RETRY_SECONDS = 2.0
Responses = dict[int | str, dict[str, Any]]
NO_TEXT = "the request holds a NUL character or half a surrogate pair: remove it"
# What any route may answer beside its success; /openapi.json states them, and a test holds the routes to it.
STATUSES: Responses = {
    400: {"model": ErrorBody, "description": "The request is wrong; `param` names the field"},
    401: {"model": ErrorBody, "description": "No key, or one that is wrong, revoked or expired"},
    403: {"model": ErrorBody, "description": "The key may not do this"},
    404: {"model": ErrorBody, "description": "There is no such thing in this project"},
    405: {"model": ErrorBody, "description": "The path knows other methods"},
    408: {"model": ErrorBody, "description": "The body did not come in time"},
    409: {"model": ErrorBody, "description": "The state of the thing does not allow it; not to be retried"},
    413: {"model": ErrorBody, "description": "The body is too large"},
    415: {"model": ErrorBody, "description": "The body is of another type than the route reads"},
    429: {"model": ErrorBody, "description": "Too many requests, or a quota is used up"},
    503: {"model": ErrorBody, "description": "A part of the service is away for now"},
}


def add_error_handlers(app: FastAPI) -> None:
    """Let no exception leave the application in another shape."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(StorageError, _storage_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(TimeoutError, _database_error)
    app.add_exception_handler(DataError, _no_text)
    app.add_exception_handler(UnicodeEncodeError, _no_text)
    app.add_exception_handler(Exception, _defect)


def error_response(error: ServiceError) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return JSONResponse({"error": body}, status_code=error.status, headers=error.headers)


def _service_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return error_response(error)


def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    """All problems of a request at once, each with its path."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    paths = [_path(problem, error.body) for problem in problems]
    lines = [f"{path or 'body'}: {_sentence(problem)}" for path, problem in zip(paths, problems, strict=True)]
    return error_response(InvalidRequestError("; ".join(lines)[:4000], param=paths[0] or None))


def _path(problem: Any, body: Any) -> str:
    """Where it is in the request: names of a union's members, which pydantic puts between, are none of the client's."""
    place, *parts = problem["loc"]
    if place != "body" or not isinstance(body, dict):
        return ".".join(str(part) for part in parts)
    path: list[str] = []
    value: Any = body
    for index, part in enumerate(parts):
        is_missing = problem["type"] == "missing" and index == len(parts) - 1
        if is_missing:
            path.append(str(part))
        elif (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            path.append(str(part))
            value = value[part]
    return ".".join(path)


def _sentence(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    shown = "" if problem["type"] in ("missing", "value_error") else f" (got {problem.get('input')!r:.80})"
    return message + shown


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ServiceError):  # what a limit said while FastAPI read the body
        return error_response(error.__cause__)
    if error.status_code == 404:
        return error_response(NotFoundError(f"there is no {request.method} {request.url.path}; see /docs"))
    wrapped = InvalidRequestError(str(error.detail))
    wrapped.status = error.status_code
    response = error_response(wrapped)
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of one route, where a path may have several
        response.headers["allow"] = ", ".join(_methods_of(request))
    return response


def _methods_of(request: Request) -> list[str]:
    routes = [route for route in iter_route_contexts(request.app.routes) if route.path_regex.match(request.url.path)]
    return sorted({method for route in routes for method in route.methods or ()})


def _storage_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StorageError)
    log.error("%s", error.message)
    message = "the object store does not answer; try again in a moment"
    return error_response(UnavailableError(message, code=error.code, retry_after=RETRY_SECONDS))


def _database_error(_request: Request, error: Exception) -> JSONResponse:
    log.error("%s", error)
    message = "the database does not answer; try again in a moment"
    return error_response(UnavailableError(message, code="database_unavailable", retry_after=RETRY_SECONDS))


def _no_text(_request: Request, _error: Exception) -> JSONResponse:
    """JSON and URLs can spell characters that PostgreSQL stores in no column."""
    return error_response(InvalidRequestError(NO_TEXT))


def _defect(request: Request, _error: Exception) -> JSONResponse:
    """What nobody foresaw: the log has the trace, the caller a request id to ask by."""
    request_id = request.scope.get("state", {}).get("request_id")
    response = error_response(ServiceError(f"the service met a defect; report it with the request id {request_id}"))
    response.headers["x-request-id"] = str(request_id)
    return response
