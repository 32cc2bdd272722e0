"""Paths, queries, headers and keys that no client should send: the documented refusal, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from orchestrator.db.models import ApiKey
from orchestrator.db.session import connect, session_factory
from tests.orchestrator.api.raw import head, send_raw
from tests.orchestrator.api.refusals import JOBS, NO_TEXT, create, fields, nothing_written, refused
from tests.orchestrator.api.routes import public_routes
from tests.orchestrator.api.service import Live, Service
from tests.orchestrator.api.tenants import new_project

IDS = {
    "a slash": "a%2Fb",
    "up": "%2e%2e",
    "up and down": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "quotes": "%27%22%60--",
    "long": "x" * 5000,
    "unicode": "%F0%9F%90%88%C3%A9",
    "blank": "%20",
    "no utf-8": "%FF%FE",
    "a NUL": "a%00b",
}


@pytest.fixture(scope="module")
def file(service: Service) -> str:
    return service.file()


@pytest.fixture(scope="module")
def job(service: Service, file: str) -> str:
    return str(create(service, fields(file)).json()["id"])


@pytest.fixture(autouse=True)
def nothing_is_written(database: str, file: str, job: str) -> Iterator[None]:
    with nothing_written(database):
        yield


@pytest.mark.parametrize("name", IDS)
def test_an_id_that_can_be_none_is_not_found_on_any_route(service: Service, name: str) -> None:
    wrong = []
    for route in public_routes(service.app):
        if route.ids and not route.operation.get("requestBody"):
            path = route.path.format(**dict.fromkeys(route.ids, IDS[name]))
            answer = service.http.request(route.method, path)
            if answer.status_code not in (400, 404) or "error" not in answer.json():
                wrong.append(f"{route.name}: {answer.status_code} {answer.text[:200]}")
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in IDS if name not in ("a slash", "up", "up and down", "a NUL")])
def test_a_job_of_such_an_id_is_not_there(service: Service, name: str) -> None:
    told = refused(service.http.get(f"{JOBS}/{IDS[name]}"), 404, code="not_found")
    assert told.endswith("GET /v1/fine_tuning/jobs lists them")


@pytest.mark.parametrize("path", [f"{JOBS}/a%00b", f"{JOBS}?after=a%00b", "/v1/models/a%00b"])
def test_a_nul_in_an_address_is_refused(service: Service, path: str) -> None:
    assert NO_TEXT in refused(service.http.get(path))


@pytest.mark.parametrize("limit", ["0", "-1", "101", "abc", "1.5", "", "true", str(10**20), str(10**400)])
@pytest.mark.parametrize("path", [JOBS, JOBS + "/{job}/events", JOBS + "/{job}/checkpoints"])
def test_a_limit_is_from_1_to_100(service: Service, job: str, path: str, limit: str) -> None:
    told = refused(service.http.get(path.format(job=job), params={"limit": limit}), param="limit")
    assert told.startswith("limit: Input should be ")


def test_a_cursor_of_another_list_is_not_found(service: Service, job: str, file: str) -> None:
    other = service.http.get(f"{JOBS}/{job}/events").json()["last_id"]
    for path, cursor in ((JOBS, other), (JOBS, file), (f"{JOBS}/{job}/events", job), (f"{JOBS}/{job}/events", "x")):
        told = refused(service.http.get(path, params={"after": cursor}), 404, code="not_found", param="after")
        assert repr(cursor) in told


@pytest.mark.parametrize(
    "query", ["metadata=abc", "metadata[]=x", "metadata[k=v", "metadata[k]x=v", f"metadata[{'k' * 65}]=v", "metadata="]
)
def test_a_filter_that_is_no_pair_is_refused(service: Service, query: str) -> None:
    told = refused(service.http.get(f"{JOBS}?{query}"), param="metadata")
    assert "null" in told or "write metadata[key]=value" in told


@pytest.mark.parametrize(
    "filters", [{f"metadata[{n}]": "v" for n in range(17)}, {"metadata[k]": "v" * 513}], ids=["17", "513 characters"]
)
def test_a_filter_beyond_what_metadata_can_be_is_refused(service: Service, filters: dict[str, str]) -> None:
    told = refused(service.http.get(JOBS, params=filters), param="metadata")
    assert "at most 16 pairs of at most 512 characters" in told


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_idempotency_key_has_from_1_to_255_characters(service: Service, file: str, key: str) -> None:
    told = refused(create(service, fields(file), **{"idempotency-key": key}), param="idempotency-key")
    assert told.startswith("idempotency-key: String should have at ")


def test_a_method_that_a_path_does_not_know_is_told_with_those_it_does(service: Service, job: str) -> None:
    answer = service.http.put(JOBS, json={})
    assert "Method Not Allowed" in refused(answer, 405)
    assert answer.headers["allow"] == "GET, POST"
    assert service.http.post(f"{JOBS}/{job}").headers["allow"] == "GET"


@pytest.mark.parametrize("name", ["openai-project", "openai-organization", "authorization", "idempotency-key"])
def test_a_header_with_any_bytes_is_no_defect(live: Live, name: str) -> None:
    sent = head("GET", "/v1/me", **{name: "\xff\xfe\x01'\"%00"})
    assert send_raw(live, sent).status in (200, 400, 401)


def test_a_key_that_is_none_is_refused_with_the_reason(service: Service, database: str, file: str) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired, revoked = new_project(database), new_project(database)
    with session_factory(connect(database)).begin() as session:
        session.execute(update(ApiKey).where(ApiKey.id == expired.key_id).values(expires_at=past))
        session.execute(update(ApiKey).where(ApiKey.id == revoked.key_id).values(revoked_at=past))
    for headers, code, remedy in (
        (expired.headers, "expired_api_key", "has expired: `ibllm keys` makes a new one"),
        (revoked.headers, "revoked_api_key", "was revoked: `ibllm keys` makes a new one"),
        ({"authorization": "Bearer sk-ib-x"}, "invalid_api_key", "is wrong: `ibllm keys` makes a new one"),
        ({"authorization": "Basic eDp5"}, "invalid_api_key", "send `Authorization: Bearer <key>`"),
        ({"authorization": ""}, "invalid_api_key", "send `Authorization: Bearer <key>`"),
    ):
        assert remedy in refused(create(service, fields(file), **headers), 401, code=code)


def test_the_project_of_another_key_is_refused(service: Service, database: str, file: str) -> None:
    mine, theirs = new_project(database), new_project(database)
    for project in (theirs.project_id, "proj-none", "'; --", "x" * 5000):
        headers = {**mine.headers, "openai-project": project}
        told = refused(create(service, fields(file), **headers), 401, code="mismatched_project")
        assert told == f"this key does not belong to project {project!r}: use one that does"


def test_a_file_of_another_project_is_as_good_as_none(service: Service, database: str, file: str) -> None:
    mine = new_project(database).headers
    known, unknown = (create(service, fields(name), **mine) for name in (file, "file-none"))
    told = refused(known, 404, code="not_found", param="stages.0.training_file")
    assert told.replace(file, "file-none") == refused(unknown, 404, code="not_found", param="stages.0.training_file")
