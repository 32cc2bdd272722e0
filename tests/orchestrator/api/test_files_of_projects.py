"""Files belong to a project: its pages, its quota, its jobs, its audit log, and nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from ibllm_core.contract.states import JobStatus
from orchestrator.db.models import AuditEntry, File, Job, Upload
from orchestrator.db.session import connect, session_factory
from orchestrator.files import uploading
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.orchestrator.api.service import Service, error_of
from tests.orchestrator.api.tenants import Tenant, new_project

GOOD = json_lines([chat_row()])


@pytest.fixture
def tenant(database: str) -> Tenant:
    return new_project(database)


def put(service: Service, tenant: Tenant, content: bytes = GOOD, **form: str) -> Any:
    form = {"purpose": "fine-tune", **form}
    return service.http.post("/v1/files", headers=tenant.headers, data=form, files={"file": ("a", content)})


def test_pages_are_in_order_and_stable_while_files_are_added(service: Service, tenant: Tenant) -> None:
    def listed(**query: Any) -> tuple[list[str], bool]:
        shown = service.http.get("/v1/files", params=query, headers=tenant.headers).json()
        return [file["id"] for file in shown["data"]], shown["has_more"]

    ids = [put(service, tenant).json()["id"] for _ in range(5)]
    assert listed() == (ids[::-1], False)
    assert listed(limit=2) == (ids[:2:-1], True)
    put(service, tenant)
    assert listed(limit=2, after=ids[3]) == ([ids[2], ids[1]], True)
    assert listed(order="asc", limit=3) == (ids[:3], True)
    assert listed(order="asc", after=ids[3], limit=1) == ([ids[4]], True)
    assert listed(purpose="fine-tune-results") == ([], False)
    assert len(listed(purpose="fine-tune")[0]) == 6


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ({"after": "file-none"}, 404, "after"),
        ({"limit": 0}, 400, "limit"),
        ({"limit": 10_001}, 400, "limit"),
        ({"limit": 10**30}, 400, "limit"),
        ({"order": "random"}, 400, "order"),
        ({"purpose": "x" * 65}, 400, "purpose"),
    ],
)
def test_a_list_refuses_what_it_does_not_know(service: Service, query: dict[str, Any], status: int, param: str) -> None:
    assert error_of(service.http.get("/v1/files", params=query), status)["param"] == param


def test_a_file_of_another_project_is_as_unknown_as_one_that_never_was(service: Service, tenant: Tenant) -> None:
    theirs = service.file()
    for path in ("/v1/files/{}", "/v1/files/{}/content", "/v1/files?after={}"):
        words = []
        for identity in (theirs, "file-" + "0" * 24):
            answer = service.http.get(path.format(identity), headers=tenant.headers)
            words.append(error_of(answer, 404)["message"].replace(identity, "…"))
        assert words[0] == words[1]
    error_of(service.http.delete(f"/v1/files/{theirs}", headers=tenant.headers), 404)
    assert service.http.get(f"/v1/files/{theirs}").status_code == 200
    assert service.http.get("/v1/files", headers=tenant.headers).json()["data"] == []


def test_a_reader_reads_and_does_not_write(service: Service, database: str) -> None:
    reader = new_project(database, "reader")
    assert service.http.get("/v1/files", headers=reader.headers).status_code == 200
    assert put(service, reader).status_code == 403
    assert service.http.delete("/v1/files/file-none", headers=reader.headers).status_code == 403


def test_files_results_and_announced_uploads_share_the_quota(service: Service, database: str) -> None:
    tenant = new_project(database, max_storage_bytes=4 * len(GOOD))
    first = put(service, tenant).json()["id"]
    result = {"id": "file-result-1", "key": "none", "filename": "x", "purpose": "fine-tune-results", "bytes": len(GOOD)}
    with session_factory(connect(database))() as session:
        session.add(File(**result, project_id=tenant.project_id, sha256="", status="processed"))
        session.commit()
    announced = {"bytes": len(GOOD), "filename": "x", "mime_type": "x", "purpose": "fine-tune"}
    upload = service.http.post("/v1/uploads", json=announced, headers=tenant.headers).json()["id"]
    assert put(service, tenant).status_code == 200
    refused = put(service, tenant)
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    assert refused.json()["error"]["type"] == "insufficient_quota"
    assert service.http.post("/v1/uploads", json=announced, headers=tenant.headers).status_code == 429
    service.http.post(f"/v1/uploads/{upload}/cancel", headers=tenant.headers)
    assert put(service, tenant).status_code == 200
    service.http.delete(f"/v1/files/{first}", headers=tenant.headers)
    assert put(service, tenant).status_code == 200
    assert put(service, tenant).status_code == 429


def test_a_result_file_is_read_like_any_other(service: Service, tenant: Tenant, database: str) -> None:
    service.store.put("jobs/ftjob-x/result.csv", b"step,loss\n")
    result = {"id": "file-result-2", "key": "jobs/ftjob-x/result.csv", "filename": "result.csv", "bytes": 10}
    with session_factory(connect(database))() as session:
        session.add(
            File(**result, project_id=tenant.project_id, purpose="fine-tune-results", sha256="", status="processed")
        )
        session.commit()
    path = "/v1/files/file-result-2"
    shown = service.http.get(path, headers=tenant.headers).json()
    assert (shown["purpose"], shown["sha256"]) == ("fine-tune-results", None)
    assert service.http.get(f"{path}/content", headers=tenant.headers).content == b"step,loss\n"


REQUESTS = [
    {"training_file": "{}"},
    {"stages": [{"training_file": "file-other"}, {"validation_file": "{}"}]},
    {"stages": [{"training_file": "file-other", "mix": [{"file": "{}", "weight": 1.0}]}]},
]


@pytest.mark.parametrize("request_of_job", REQUESTS)
def test_a_file_stays_while_an_open_job_uses_it(
    service: Service, tenant: Tenant, database: str, request_of_job: dict[str, Any]
) -> None:
    file = put(service, tenant).json()["id"]
    job_id = f"ftjob-{file}"
    with session_factory(connect(database))() as session:
        named = json.loads(json.dumps(request_of_job).replace("{}", file))
        job = Job(id=job_id, project_id=tenant.project_id, request=named, status=JobStatus.FAILED)
        session.add(job)
        for status in (JobStatus.VALIDATING_FILES, JobStatus.QUEUED, JobStatus.PAUSED, JobStatus.RUNNING):
            job.status = status
            session.commit()
            refused = service.http.delete(f"/v1/files/{file}", headers=tenant.headers)
            assert refused.headers["x-should-retry"] == "false"
            assert error_of(refused, 409)["message"].startswith(f"job {job_id} uses {file}: cancel it")
        job.status = JobStatus.SUCCEEDED
        session.commit()
    assert service.http.delete(f"/v1/files/{file}", headers=tenant.headers).status_code == 200


def test_deeds_are_in_the_audit_log(service: Service, tenant: Tenant, database: str) -> None:
    file = put(service, tenant).json()["id"]
    service.http.delete(f"/v1/files/{file}", headers=tenant.headers)
    with session_factory(connect(database))() as session:
        entries = session.scalars(select(AuditEntry).where(AuditEntry.target == file).order_by(AuditEntry.sequence))
        deeds = [(entry.action, entry.user_id, entry.project_id) for entry in entries]
    assert deeds == [(f"file.{deed}", tenant.user_id, tenant.project_id) for deed in ("created", "deleted")]


def test_a_file_that_took_longer_to_store_than_it_may_is_no_file(
    service: Service, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = uploading.store_whole

    def slow(store: Any, upload: Upload, source: Any) -> str:
        with service.app.state.sessions() as session:
            session.get_one(Upload, upload.id).status = uploading.EXPIRED
            session.commit()
        return real(store, upload, source)

    monkeypatch.setattr(uploading, "store_whole", slow)
    assert "send it in parts" in error_of(put(service, tenant), 409)["message"]
    assert service.http.get("/v1/files", headers=tenant.headers).json()["data"] == []


def test_a_project_without_files_has_an_empty_page(service: Service, tenant: Tenant) -> None:
    empty = {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
    assert service.http.get("/v1/files", headers=tenant.headers).json() == empty
