"""Whose key a request shows; and the key that is a setting."""

from __future__ import annotations

from orchestrator.db.session import connect, session_factory
from orchestrator.tenants.access import GRANTED, Role
from orchestrator.tenants.bootstrap import ensure_operator
from tests.orchestrator.api.admin.conftest import Administration
from tests.orchestrator.api.service import Service
from tests.orchestrator.api.tenants import Tenant


def test_a_key_is_told_what_it_is(service: Service, reader: Tenant) -> None:
    assert service.http.get("/v1/me", headers=reader.headers).json() == {
        "object": "caller",
        "organization": {"id": reader.organization_id, "name": reader.organization_id},
        "project": {"id": reader.project_id, "name": reader.project_id},
        "user": {"id": reader.user_id, "name": "reader"},
        "key": {"id": reader.key_id, "name": "reader"},
        "role": "reader",
        "scopes": None,
        "permissions": sorted(GRANTED[Role.READER]),
        "expires_at": None,
    }


def test_a_key_of_the_organization_has_no_project(
    service: Service, owner: Tenant, administration: Administration
) -> None:
    value = administration(owner).admin_api_keys.create(name="key").value
    me = service.http.get("/v1/me", headers={"authorization": f"Bearer {value}"}).json()
    assert (me["project"], me["role"]) == (None, "owner")


def test_headers_choose_the_project_that_an_owner_acts_in(
    service: Service, owner: Tenant, admin: Tenant, administration: Administration
) -> None:
    other = administration(owner).projects.create(name="other")
    chosen = {"openai-project": other.id, "openai-organization": owner.organization_id}
    me = service.http.get("/v1/me", headers={**owner.headers, **chosen}).json()
    assert me["project"] == {"id": other.id, "name": "other"}
    foreign = service.http.get("/v1/me", headers={**admin.headers, **chosen})
    missing = service.http.get("/v1/me", headers={**admin.headers, "openai-project": "proj-none"})
    assert foreign.status_code == missing.status_code == 401
    assert foreign.text.replace(other.id, "proj-none") == missing.text


def test_the_operators_key_follows_the_setting(service: Service, database: str) -> None:
    sessions = session_factory(connect(database))
    setting = service.app.state.settings.api_key
    with sessions() as session:
        ensure_operator(session, "another key")
        ensure_operator(session, "another key")
    try:
        assert service.http.get("/v1/me").status_code == 401
        me = service.http.get("/v1/me", headers={"authorization": "Bearer another key"}).json()
        assert (me["role"], me["key"]["id"]) == ("operator", "key-operator")
    finally:
        with sessions() as session:
            ensure_operator(session, setting)
    assert service.http.get("/v1/me").status_code == 200
