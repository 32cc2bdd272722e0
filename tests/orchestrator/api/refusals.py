"""Refusals as the contract describes them, and requests that deserve one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from httpx2 import Response
from sqlalchemy import func, select

from orchestrator.db.models import AuditEntry, Base, Event, File, Job, ModelPermission, Run, Upload
from orchestrator.db.session import connect, session_factory
from tests.orchestrator.api.raw import RawAnswer
from tests.orchestrator.api.service import BASE, ENCODER, Service

JOBS = "/v1/fine_tuning/jobs"
JSON = {"content-type": "application/json"}
TYPES = {401: "authentication_error", 403: "permission_error"}
TABLES: tuple[type[Base], ...] = (Job, Run, Event, File, Upload, ModelPermission, AuditEntry)
NO_TEXT = "holds a NUL character or half a surrogate pair: remove it"


def refused(
    answer: Response | RawAnswer, status: int = 400, *, code: str = "invalid_request", param: str | None = None
) -> str:
    """What an answer says, which is a refusal in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == (TYPES.get(status, "invalid_request_error"), code), error
    assert error["param"] == param, error
    assert answer.headers["x-request-id"].startswith("req-")
    return str(error["message"])


def create(service: Service, body: bytes | str | dict[str, Any], **headers: str) -> Response:
    content = json.dumps(body) if isinstance(body, dict) else body
    return service.http.post(JOBS, content=content, headers={**JSON, **headers})


def fields(file: str, **changes: Any) -> dict[str, Any]:
    """A job that would be taken."""
    return {"model": BASE, "encoder": ENCODER, "stages": [{"stage": "stage1", "training_file": file}], **changes}


@contextmanager
def nothing_written(database: str) -> Iterator[None]:
    """That the service's tables have as many rows afterwards as before."""
    engine = connect(database)
    with session_factory(engine)() as session:

        def counts() -> dict[str, int]:
            counted = {t.__tablename__: session.scalar(select(func.count()).select_from(t)) or 0 for t in TABLES}
            session.rollback()
            return counted

        before = counts()
        yield
        assert counts() == before
    engine.dispose()
