"""Who has which role in a project."""

from __future__ import annotations

import openai
import pytest

from orchestrator.tenants.access import Role
from tests.orchestrator.api.admin.conftest import Administration
from tests.orchestrator.api.service import Service
from tests.orchestrator.api.tenants import Tenant, new_member, new_project


@pytest.fixture
def person(service: Service, owner: Tenant) -> str:
    """A user of the organisation without a project."""
    body = {"name": "Ada", "email": "Ada@Example.com"}
    return str(service.http.post("/v1/organization/users", headers=owner.headers, json=body).json()["id"])


def test_an_admin_adds_reads_changes_and_removes_a_member(
    admin: Tenant, person: str, administration: Administration
) -> None:
    users = administration(admin).projects.users
    added = users.create(admin.project_id, email="ada@example.com", role="reader")
    assert (added.id, added.object, added.role) == (person, "organization.project.user", "reader")
    assert users.retrieve(person, project_id=admin.project_id) == added
    assert users.update(person, project_id=admin.project_id, role="submitter").role == "submitter"
    assert person in [user.id for user in users.list(admin.project_id, limit=1)]
    assert users.delete(person, project_id=admin.project_id).deleted
    with pytest.raises(openai.NotFoundError):
        users.retrieve(person, project_id=admin.project_id)


@pytest.mark.parametrize(("said", "meant"), [("member", "submitter"), ("owner", "admin"), ("admin", "admin")])
def test_openais_words_for_roles_are_understood(
    admin: Tenant, person: str, administration: Administration, said: str, meant: str
) -> None:
    assert administration(admin).projects.users.create(admin.project_id, user_id=person, role=said).role == meant


def test_a_member_is_not_added_twice(admin: Tenant, reader: Tenant, administration: Administration) -> None:
    with pytest.raises(openai.ConflictError, match="is a member already"):
        administration(admin).projects.users.create(admin.project_id, user_id=reader.user_id, role="admin")


def test_people_of_other_organizations_cannot_be_added(
    admin: Tenant, stranger: Tenant, administration: Administration
) -> None:
    users = administration(admin).projects.users
    with pytest.raises(openai.NotFoundError) as foreign:
        users.create(admin.project_id, user_id=stranger.user_id, role="reader")
    with pytest.raises(openai.NotFoundError) as missing:
        users.create(admin.project_id, user_id="user-none", role="reader")
    assert foreign.value.message.replace(stranger.user_id, "user-none") == missing.value.message
    with pytest.raises(openai.BadRequestError, match="one of them"):
        users.create(admin.project_id, role="reader")


def test_a_removed_member_and_the_keys_of_that_time_are_out(
    service: Service, admin: Tenant, reader: Tenant, administration: Administration
) -> None:
    users = administration(admin).projects.users
    assert service.http.get("/v1/me", headers=reader.headers).status_code == 200
    users.delete(reader.user_id, project_id=admin.project_id)
    assert service.http.get("/v1/me", headers=reader.headers).status_code == 401
    users.create(admin.project_id, user_id=reader.user_id, role="reader")
    answer = service.http.get("/v1/me", headers=reader.headers)
    assert answer.json()["error"]["code"] == "revoked_api_key"


def test_a_new_role_counts_at_once(
    service: Service, admin: Tenant, reader: Tenant, administration: Administration
) -> None:
    administration(admin).projects.users.update(reader.user_id, project_id=admin.project_id, role="admin")
    assert service.http.get("/v1/me", headers=reader.headers).json()["role"] == "admin"


def test_a_key_gives_no_role_beyond_its_scopes(service: Service, database: str, owner: Tenant, person: str) -> None:
    narrow = new_member(
        database, owner.project_id, Role.ADMIN, organization_id=owner.organization_id, scopes=["project:write"]
    )
    body = {"user_id": person, "role": "reader"}
    path = f"/v1/organization/projects/{owner.project_id}/users"
    answer = service.http.post(path, headers=narrow.headers, json=body)
    assert answer.status_code == 403
    assert "may not give what it has not" in answer.json()["error"]["message"]


def test_service_accounts_stay_in_their_project(service: Service, database: str, owner: Tenant) -> None:
    projects = f"/v1/organization/projects/{owner.project_id}"
    account = service.http.post(f"{projects}/service_accounts", headers=owner.headers, json={"name": "robot"}).json()
    other = new_project(database, organization_id=owner.organization_id)
    answers = [
        service.http.post(
            f"/v1/organization/projects/{other.project_id}/users",
            headers=owner.headers,
            json={"user_id": account["id"], "role": "admin"},
        ),
        service.http.delete(f"{projects}/users/{account['id']}", headers=owner.headers),
    ]
    assert [answer.status_code for answer in answers] == [409, 409]
