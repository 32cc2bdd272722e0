"""Projects, through OpenAI's client where it has the call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import openai
import pytest

from ibllm_core.contract.states import JobStatus
from orchestrator.db.models import Attempt, File, Job, Run
from orchestrator.db.session import connect, session_factory
from orchestrator.ids import new_id
from orchestrator.tenants.bootstrap import DEFAULT_PROJECT
from orchestrator.tenants.usage import month_start
from tests.orchestrator.api.admin.conftest import Administration
from tests.orchestrator.api.service import Service, error_of
from tests.orchestrator.api.tenants import Tenant

QUOTAS = {
    "max_gpus": 4.0,
    "gpu_hours_per_month": 100.0,
    "max_queued_jobs": 5,
    "max_storage_bytes": 10**9,
    "requests_per_minute": 600,
}


def test_an_owner_makes_reads_renames_and_archives_a_project(owner: Tenant, administration: Administration) -> None:
    projects = administration(owner).projects
    made = projects.create(name="  cats ", extra_body=QUOTAS)
    assert (made.object, made.name, made.status, made.archived_at) == ("organization.project", "cats", "active", None)
    assert made.model_extra == {**QUOTAS, "data_prefixes": []}
    assert projects.retrieve(made.id) == made
    renamed = projects.update(made.id, name="dogs", extra_body={"max_gpus": None})
    assert (renamed.name, renamed.model_extra) == ("dogs", {**QUOTAS, "max_gpus": None, "data_prefixes": []})
    archived = projects.archive(made.id)
    assert (archived.status, archived.archived_at is not None) == ("archived", True)
    assert made.id not in [project.id for project in projects.list()]
    assert made.id in [project.id for project in projects.list(include_archived=True)]


def test_projects_are_listed_newest_first_over_several_pages(owner: Tenant, administration: Administration) -> None:
    projects = administration(owner).projects
    made = [projects.create(name=f"project {number}").id for number in range(5)]
    assert [project.id for project in projects.list(limit=2)] == [*reversed(made), owner.project_id]


def test_an_archived_project_takes_nothing_and_its_keys_are_refused(
    service: Service, owner: Tenant, admin: Tenant, administration: Administration
) -> None:
    other = administration(owner).projects.create(name="other")
    key = administration(owner).admin_api_keys.create(name="stays")
    administration(owner).projects.archive(owner.project_id)
    refused = service.http.get("/v1/me", headers=admin.headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "project_archived")
    headers = {"authorization": f"Bearer {key.value}"}
    path = f"/v1/organization/projects/{owner.project_id}"
    assert service.http.get(path, headers=headers).json()["status"] == "archived"
    for deed in (f"{path}/archive", f"{path}/service_accounts", f"{path}/api_keys"):
        answer = service.http.post(deed, headers=headers, json={"name": "late"})
        assert "is archived" in error_of(answer, 409)["message"]
    assert service.http.get(f"/v1/organization/projects/{other.id}", headers=headers).status_code == 200


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED])
def test_a_project_with_an_open_job_is_not_archived(
    database: str, owner: Tenant, administration: Administration, status: JobStatus
) -> None:
    with session_factory(connect(database)).begin() as session:
        session.add(Job(id=new_id("ftjob"), project_id=owner.project_id, request={}, status=status))
    with pytest.raises(openai.ConflictError, match="cancel it first"):
        administration(owner).projects.archive(owner.project_id)


def test_the_project_of_the_operators_key_is_not_archived(service: Service) -> None:
    answer = service.http.post(f"/v1/organization/projects/{DEFAULT_PROJECT}/archive")
    assert error_of(answer, 409)["param"] == "project_id"


def test_an_admin_reads_the_own_project_and_changes_no_quota(service: Service, admin: Tenant, stranger: Tenant) -> None:
    path = f"/v1/organization/projects/{admin.project_id}"
    assert service.http.get(path, headers=admin.headers).json()["id"] == admin.project_id
    assert service.http.post(path, headers=admin.headers, json={"max_gpus": 100}).status_code == 403
    foreign = service.http.get(f"/v1/organization/projects/{stranger.project_id}", headers=admin.headers)
    assert error_of(foreign, 404)["param"] == "project_id"


def test_only_the_operator_says_what_jobs_read_with_the_services_credentials(service: Service, owner: Tenant) -> None:
    path = f"/v1/organization/projects/{owner.project_id}"
    wanted = {"data_prefixes": ["s3://cats/", "/data/"]}
    for refused in (
        service.http.post(path, headers=owner.headers, json=wanted),
        service.http.post("/v1/organization/projects", headers=owner.headers, json={"name": "sly", **wanted}),
    ):
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "data_prefixes")
    assert service.http.post(path, json=wanted).json()["data_prefixes"] == wanted["data_prefixes"]
    unchanged = service.http.post(path, headers=owner.headers, json={"name": "same", **wanted})
    assert unchanged.json()["data_prefixes"] == wanted["data_prefixes"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "n" * 201),
        ("max_gpus", -1),
        ("max_queued_jobs", 10**12),
        ("requests_per_minute", 0),
        ("max_storage_bytes", 1.5),
        ("data_prefixes", ["https://cats/"]),
        ("data_prefixes", ["s3://cats"]),
        ("colour", "red"),
    ],
)
def test_a_bad_field_is_named(service: Service, owner: Tenant, field: str, value: object) -> None:
    body = {"name": "cats", field: value}
    answer = service.http.post("/v1/organization/projects", headers=owner.headers, json=body)
    assert str(error_of(answer)["param"]).startswith(field)


def test_usage_is_told_beside_the_quotas(
    service: Service, database: str, owner: Tenant, reader: Tenant, administration: Administration
) -> None:
    administration(owner).projects.update(owner.project_id, extra_body=QUOTAS)
    now = datetime.now(UTC)
    start = month_start(now)
    with session_factory(connect(database)).begin() as session:
        job = Job(id=new_id("ftjob"), project_id=owner.project_id, request={}, status=JobStatus.QUEUED)
        session.add(job)
        session.flush()
        run = Run(id=new_id("run"), job_id=job.id, position=0, kind="stage1")
        session.add(run)
        session.flush()
        common = {"run_id": run.id, "project_id": owner.project_id, "token": "t"}
        across = {"created_at": start - timedelta(hours=5), "finished_at": start + timedelta(hours=2)}
        session.add_all(
            [
                Attempt(id=new_id("attempt"), number=1, gpus=2.0, **common, **across),
                Attempt(id=new_id("attempt"), number=2, gpus=0.5, created_at=now, **common),
                File(
                    id=new_id("file"),
                    project_id=owner.project_id,
                    key="k",
                    filename="f",
                    purpose="fine-tune",
                    bytes=12,
                    status="processed",
                ),
            ]
        )
    usage = service.http.get(f"/v1/organization/projects/{owner.project_id}/usage", headers=reader.headers).json()
    expected = 2.0 * min(2.0, (now - start).total_seconds() / 3600)  # the month may be younger than two hours
    assert usage["gpu_hours"] == pytest.approx(expected, abs=0.05)
    told = {name: usage[name] for name in ("gpus", "queued_jobs", "storage_bytes", "month_start")}
    assert told == {"gpus": 0.5, "queued_jobs": 1, "storage_bytes": 12, "month_start": int(start.timestamp())}
    assert usage["quotas"] == QUOTAS
