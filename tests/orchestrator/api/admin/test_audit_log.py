"""Who did what, in OpenAI's shape."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import openai
import pytest
from sqlalchemy import update

from orchestrator.db.models import AuditEntry
from orchestrator.db.session import connect, session_factory
from tests.orchestrator.api.admin.conftest import Administration
from tests.orchestrator.api.service import Service, error_of
from tests.orchestrator.api.tenants import Tenant

LOG = "/v1/organization/audit_logs"


def test_a_deed_is_told_with_actor_target_and_details(
    owner: Tenant, admin: Tenant, reader: Tenant, administration: Administration
) -> None:
    organization = administration(owner)
    project = organization.projects.create(name="cats")
    organization.projects.update(project.id, name="dogs")
    administration(admin).projects.users.update(reader.user_id, project_id=admin.project_id, role="submitter")
    changed, renamed, created = list(organization.audit_logs.list())
    assert (created.type, created.project, created.effective_at > time.time() - 60) == ("project.created", None, True)
    assert created.project_created is not None and created.project_created.id == project.id
    assert created.project_created.data is not None and created.project_created.data.name == "cats"
    assert renamed.project_updated is not None and renamed.project_updated.changes_requested is not None
    assert renamed.project is not None and renamed.project.id == project.id
    assert changed.project is not None and changed.project.id == admin.project_id
    assert changed.actor is not None and changed.actor.api_key is not None and changed.actor.api_key.user is not None
    assert (changed.actor.api_key.id, changed.actor.api_key.user.id) == (admin.key_id, admin.user_id)
    assert changed.model_extra is not None and changed.model_extra["target"] == reader.user_id
    assert str(changed.model_extra["request_id"]).startswith("req-")


def test_entries_are_filtered(owner: Tenant, admin: Tenant, reader: Tenant, administration: Administration) -> None:
    log = administration(owner).audit_logs
    project = administration(owner).projects.create(name="cats")
    administration(admin).projects.users.delete(reader.user_id, project_id=admin.project_id)

    def types(**filters: object) -> list[str]:
        return [entry.type for entry in log.list(**filters)]  # type: ignore[arg-type]

    assert types() == ["user.deleted", "project.created"]
    assert types(project_ids=[admin.project_id]) == ["user.deleted"]
    assert types(event_types=["project.created", "project.archived"]) == ["project.created"]
    assert types(actor_ids=[owner.user_id]) == types(actor_ids=[owner.key_id]) == ["project.created"]
    assert types(resource_ids=[project.id]) == ["project.created"]
    assert types(actor_emails=["nobody@example.com"]) == []


def test_times_are_whole_seconds(database: str, owner: Tenant, administration: Administration) -> None:
    administration(owner).projects.create(name="cats")
    with session_factory(connect(database)).begin() as session:
        session.execute(
            update(AuditEntry)
            .where(AuditEntry.organization_id == owner.organization_id)
            .values(created_at=datetime.fromtimestamp(1000.7, UTC))
        )
    log = administration(owner).audit_logs
    told = {
        (word, second): len(list(log.list(effective_at={word: second})))  # type: ignore[misc]
        for word in ("gt", "gte", "lt", "lte")
        for second in (999, 1000, 1001)
    }
    assert {pair for pair, count in told.items() if count} == {
        ("gt", 999),
        ("gte", 999),
        ("gte", 1000),
        ("lte", 1000),
        ("lte", 1001),
        ("lt", 1001),
    }


def test_pages_go_back_and_forth(service: Service, owner: Tenant, administration: Administration) -> None:
    for number in range(5):
        administration(owner).projects.create(name=f"project {number}")
    everything = [entry.id for entry in administration(owner).audit_logs.list(limit=2)]
    assert len(everything) == 5

    def page(**query: object) -> tuple[list[str], bool]:
        answer = service.http.get(LOG, headers=owner.headers, params={"limit": 2, **query}).json()  # type: ignore[arg-type]
        return [entry["id"] for entry in answer["data"]], answer["has_more"]

    assert page(after=everything[1]) == (everything[2:4], True)
    assert page(before=everything[3]) == (everything[1:3], True)
    assert page(before=everything[2]) == (everything[:2], False)


def test_another_organizations_entries_are_no_cursors(
    service: Service, owner: Tenant, stranger: Tenant, administration: Administration
) -> None:
    administration(stranger).projects.create(name="theirs")
    foreign = next(iter(administration(stranger).audit_logs.list())).id
    for param in ("after", "before"):
        answer = service.http.get(LOG, headers=owner.headers, params={param: foreign})
        assert error_of(answer, 404)["param"] == param
    assert list(administration(owner).audit_logs.list()) == []


def test_admins_do_not_read_it(admin: Tenant, administration: Administration) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        administration(admin).audit_logs.list()


@pytest.mark.parametrize(
    "query",
    [{"after": "a", "before": "b"}, {"limit": 0}, {"limit": 10**30}, {"effective_at[gt]": 10**18}],
)
def test_a_bad_query_is_refused(service: Service, owner: Tenant, query: dict[str, object]) -> None:
    error_of(service.http.get(LOG, headers=owner.headers, params=query))  # type: ignore[arg-type]
