"""Customers of the installation, made by its operator."""

from __future__ import annotations

from tests.orchestrator.api.service import Live, Service, error_of
from tests.orchestrator.api.tenants import Tenant

BODY = {"name": "Cats & Co", "owner": {"name": "Ada", "email": "ada@example.com"}}


def test_a_new_organization_has_an_owner_with_a_key(service: Service, live: Live) -> None:
    made = service.http.post("/v1/organizations", json=BODY).json()
    assert (made["object"], made["name"], made["owner"]["role"]) == ("organization", "Cats & Co", "owner")
    organization = live.openai(admin_api_key=made["admin_api_key"]["value"]).admin.organization
    assert [user.id for user in organization.users.list()] == [made["owner"]["id"]]
    project = organization.projects.create(name="first")
    assert [found.id for found in organization.projects.list()] == [project.id]
    assert service.http.get(f"/v1/organizations/{made['id']}").json()["name"] == "Cats & Co"
    listed = service.http.get("/v1/organizations", params={"limit": 1}).json()
    assert [item["id"] for item in listed["data"]] == [made["id"]]
    assert listed["has_more"]
    older = service.http.get("/v1/organizations", params={"after": made["id"], "limit": 100}).json()
    assert made["id"] not in [item["id"] for item in older["data"]]


def test_the_operator_administers_an_organization_by_naming_it(service: Service, owner: Tenant) -> None:
    headers = {"openai-organization": owner.organization_id}
    listed = service.http.get("/v1/organization/projects", headers=headers).json()["data"]
    assert [project["id"] for project in listed] == [owner.project_id]
    made = service.http.post("/v1/organization/projects", headers=headers, json={"name": "by the operator"}).json()
    mine = service.http.get(f"/v1/organization/projects/{made['id']}", headers=owner.headers).json()
    assert mine["name"] == "by the operator"
    unknown = service.http.get("/v1/organization/projects", headers={"openai-organization": "org-none"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (401, "mismatched_organization")


def test_an_owner_names_no_other_organization(service: Service, owner: Tenant, stranger: Tenant) -> None:
    headers = {**owner.headers, "openai-organization": stranger.organization_id}
    assert service.http.get("/v1/organization/projects", headers=headers).status_code == 401


def test_owners_make_no_organizations(service: Service, owner: Tenant) -> None:
    assert service.http.post("/v1/organizations", headers=owner.headers, json=BODY).status_code == 403
    assert error_of(service.http.get("/v1/organizations/org-none"), 404)["param"] == "organization_id"
