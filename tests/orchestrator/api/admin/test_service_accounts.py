"""Programs that act in a project."""

from __future__ import annotations

import openai
import pytest

from tests.orchestrator.api.admin.conftest import Administration
from tests.orchestrator.api.service import Service
from tests.orchestrator.api.tenants import Tenant


def test_a_service_account_comes_with_a_key_and_goes_with_it(
    service: Service, admin: Tenant, administration: Administration
) -> None:
    accounts = administration(admin).projects.service_accounts
    made = accounts.create(admin.project_id, name="robot", expires_in_seconds=3600)
    assert (made.object, made.role) == ("organization.project.service_account", "submitter")
    assert made.api_key is not None
    headers = {"authorization": f"Bearer {made.api_key.value}"}
    assert service.http.get("/v1/me", headers=headers).json()["user"] == {"id": made.id, "name": "robot"}
    keys = administration(admin).projects.api_keys.list(admin.project_id)
    owner = next(key.owner for key in keys if made.api_key.id == key.id)
    assert (owner.type, owner.user) == ("service_account", None)
    assert owner.service_account is not None and owner.service_account.id == made.id
    assert [account.id for account in accounts.list(admin.project_id)] == [made.id]
    assert accounts.retrieve(made.id, project_id=admin.project_id).name == "robot"
    assert accounts.delete(made.id, project_id=admin.project_id).deleted
    assert service.http.get("/v1/me", headers=headers).status_code == 401


def test_a_role_can_be_chosen(admin: Tenant, administration: Administration) -> None:
    accounts = administration(admin).projects.service_accounts
    assert accounts.create(admin.project_id, name="eye", extra_body={"role": "reader"}).role == "reader"


def test_people_are_no_service_accounts(admin: Tenant, reader: Tenant, administration: Administration) -> None:
    with pytest.raises(openai.NotFoundError):
        administration(admin).projects.service_accounts.delete(reader.user_id, project_id=admin.project_id)


def test_a_service_account_does_not_remove_itself(
    service: Service, admin: Tenant, administration: Administration
) -> None:
    accounts = administration(admin).projects.service_accounts
    made = accounts.create(admin.project_id, name="robot", extra_body={"role": "admin"})
    assert made.api_key is not None
    path = f"/v1/organization/projects/{admin.project_id}/service_accounts/{made.id}"
    answer = service.http.delete(path, headers={"authorization": f"Bearer {made.api_key.value}"})
    assert answer.status_code == 409
