"""Keys of an organisation."""

from __future__ import annotations

import openai
import pytest

from orchestrator.tenants.access import Role
from tests.orchestrator.api.admin.conftest import Administration
from tests.orchestrator.api.service import Live, Service, error_of
from tests.orchestrator.api.tenants import Tenant, new_member


def test_an_owner_makes_sees_and_revokes_keys_of_the_organization(
    live: Live, owner: Tenant, administration: Administration
) -> None:
    keys = administration(owner).admin_api_keys
    made = [keys.create(name=f"key {number}", expires_in_seconds=3600) for number in range(3)]
    assert made[0].owner.id == owner.user_id and made[0].expires_at is not None
    assert [key.id for key in keys.list(limit=2)] == [key.id for key in reversed(made)]
    assert [key.id for key in keys.list(limit=2, order="asc")] == [key.id for key in made]
    assert keys.retrieve(made[0].id).redacted_value != made[0].value
    organization = live.openai(admin_api_key=made[0].value, max_retries=0).admin.organization
    assert owner.project_id in [project.id for project in organization.projects.list()]
    assert keys.delete(made[0].id).deleted
    with pytest.raises(openai.AuthenticationError):
        organization.projects.retrieve(owner.project_id)


def test_such_a_key_acts_in_a_project_that_is_named(
    service: Service, owner: Tenant, stranger: Tenant, administration: Administration
) -> None:
    value = administration(owner).admin_api_keys.create(name="key").value
    headers = {"authorization": f"Bearer {value}"}
    assert error_of(service.http.get("/v1/webhook_endpoints", headers=headers))["code"] == "project_missing"
    inside = {**headers, "openai-project": owner.project_id}
    assert service.http.get("/v1/webhook_endpoints", headers=inside).status_code == 200
    foreign = service.http.get("/v1/webhook_endpoints", headers={**headers, "openai-project": stranger.project_id})
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (401, "mismatched_project")


def test_the_key_that_asks_is_not_revoked(live: Live, owner: Tenant, administration: Administration) -> None:
    made = administration(owner).admin_api_keys.create(name="key")
    with pytest.raises(openai.ConflictError, match="another one"):
        live.openai(admin_api_key=made.value).admin.organization.admin_api_keys.delete(made.id)


def test_a_narrow_key_makes_no_wider_one(service: Service, database: str, owner: Tenant) -> None:
    narrow = new_member(
        database, owner.project_id, Role.OWNER, organization_id=owner.organization_id, scopes=["organization:write"]
    )
    path = "/v1/organization/admin_api_keys"
    wide = {"name": "wide", "scopes": ["organization:write", "organization:read"]}
    answers = [service.http.post(path, headers=narrow.headers, json=body) for body in (wide, {"name": "wider"})]
    assert [answer.status_code for answer in answers] == [403, 403]
    same = service.http.post(path, headers=narrow.headers, json={**wide, "scopes": ["organization:write"]})
    assert same.json()["scopes"] == ["organization:write"]
