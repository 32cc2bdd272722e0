"""Keys of projects: made, seen, narrowed, rotated, revoked; and never above who makes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import openai
import pytest
from httpx2 import Response
from sqlalchemy import update

from orchestrator.db.models import ApiKey
from orchestrator.db.session import connect, session_factory
from orchestrator.tenants.access import GRANTED, Role
from orchestrator.tenants.bootstrap import DEFAULT_PROJECT, OPERATOR_KEY
from orchestrator.tenants.keys import hint_of
from tests.orchestrator.api.admin.conftest import Administration
from tests.orchestrator.api.service import Service, error_of
from tests.orchestrator.api.tenants import Tenant, new_member, new_project


def keys_of(tenant: Tenant, *parts: str) -> str:
    return "/".join([f"/v1/organization/projects/{tenant.project_id}/api_keys", *parts])


def make(service: Service, by: Tenant, **body: Any) -> dict[str, Any]:
    answer = service.http.post(keys_of(by), headers=by.headers, json={"name": "laptop", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def me(service: Service, secret: str) -> Response:
    return service.http.get("/v1/me", headers={"authorization": f"Bearer {secret}"})


def test_a_key_is_shown_once_and_then_by_its_hint(
    service: Service, admin: Tenant, administration: Administration
) -> None:
    made = make(service, admin, scopes=["jobs:read"], expires_in_seconds=3600)
    keys = administration(admin).projects.api_keys
    seen = keys.retrieve(made["id"], project_id=admin.project_id)
    assert seen.object == "organization.project.api_key"
    assert seen.redacted_value == hint_of(made["value"])
    assert "value" not in (seen.model_extra or {})
    assert seen.model_extra is not None and seen.model_extra["scopes"] == ["jobs:read"]
    assert seen.owner.user is not None and (seen.owner.type, seen.owner.user.id) == ("user", admin.user_id)
    assert seen.owner_project_access == "active"
    assert seen.expires_at is not None and abs(seen.expires_at - time.time() - 3600) < 60
    assert seen.last_used_at is None
    mine = me(service, made["value"]).json()
    assert (mine["role"], mine["permissions"], mine["project"]["id"]) == ("admin", ["jobs:read"], admin.project_id)
    assert keys.retrieve(made["id"], project_id=admin.project_id).last_used_at is not None


def test_keys_are_listed_newest_first_without_revoked_ones(
    service: Service, admin: Tenant, administration: Administration
) -> None:
    made = [make(service, admin)["id"] for _ in range(4)]
    keys = administration(admin).projects.api_keys
    seen = []
    for key in keys.list(admin.project_id, limit=2):
        seen.append(key.id)
        if key.id in made:  # a cursor may be what was just revoked
            assert keys.delete(key.id, project_id=admin.project_id).deleted
    assert seen[:4] == made[::-1]
    assert not {key.id for key in keys.list(admin.project_id)} & set(made)


def test_a_revoked_key_is_refused_at_once(service: Service, admin: Tenant, administration: Administration) -> None:
    made = make(service, admin)
    assert me(service, made["value"]).status_code == 200
    administration(admin).projects.api_keys.delete(made["id"], project_id=admin.project_id)
    assert me(service, made["value"]).json()["error"]["code"] == "revoked_api_key"
    with pytest.raises(openai.NotFoundError):
        administration(admin).projects.api_keys.delete(made["id"], project_id=admin.project_id)


def test_an_expired_key_is_refused_and_can_only_be_revoked(service: Service, database: str, admin: Tenant) -> None:
    made = make(service, admin, expires_at=int(time.time()) + 1000)
    with session_factory(connect(database)).begin() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(expires_at=past))
    assert me(service, made["value"]).json()["error"]["code"] == "expired_api_key"
    for path, body in ((keys_of(admin, made["id"]), {"scopes": []}), (keys_of(admin, made["id"], "rotate"), {})):
        assert "has expired" in error_of(service.http.post(path, headers=admin.headers, json=body), 409)["message"]
    assert service.http.delete(keys_of(admin, made["id"]), headers=admin.headers).status_code == 200


@pytest.mark.parametrize("grace", [0, 600])
def test_a_rotated_key_works_for_the_grace_time_and_no_longer(service: Service, admin: Tenant, grace: int) -> None:
    old = make(service, admin, scopes=["jobs:read"], expires_in_seconds=7200)
    answer = service.http.post(
        keys_of(admin, old["id"], "rotate"), headers=admin.headers, json={"grace_seconds": grace}
    )
    new = answer.json()
    assert (new["name"], new["scopes"], new["owner"]) == ("laptop", ["jobs:read"], old["owner"])
    assert abs(new["expires_at"] - old["expires_at"]) < 60
    assert me(service, new["value"]).status_code == 200
    assert me(service, old["value"]).status_code == (200 if grace else 401)
    remains = service.http.get(keys_of(admin, old["id"]), headers=admin.headers).json()
    assert abs(remains["expires_at"] - time.time() - grace) < 60


def test_scopes_and_expiry_are_changed(service: Service, admin: Tenant, administration: Administration) -> None:
    made = make(service, admin)
    keys = administration(admin).projects.api_keys
    keys.update(made["id"], project_id=admin.project_id, scopes=["files:read"], expires_in_seconds=600)
    mine = me(service, made["value"]).json()
    assert mine["scopes"] == ["files:read"]
    assert abs(mine["expires_at"] - time.time() - 600) < 60
    keys.update(made["id"], project_id=admin.project_id, scopes=[])
    assert me(service, made["value"]).json()["scopes"] is None


def test_a_key_can_be_made_for_another_member(service: Service, admin: Tenant, reader: Tenant) -> None:
    made = make(service, admin, user_id=reader.user_id)
    mine = me(service, made["value"]).json()
    assert (mine["user"]["id"], mine["role"]) == (reader.user_id, "reader")
    assert made["owner"]["user"]["id"] == reader.user_id


def test_no_key_is_made_for_who_is_above(service: Service, owner: Tenant, admin: Tenant) -> None:
    for scopes in (None, ["jobs:read"]):
        body = {"name": "sly", "user_id": owner.user_id, "scopes": scopes}
        answer = service.http.post(keys_of(admin), headers=admin.headers, json=body)
        assert answer.status_code == 403, answer.text


def test_who_is_above_has_keys_that_others_neither_take_over_nor_revoke(
    service: Service, owner: Tenant, admin: Tenant
) -> None:
    path = keys_of(admin, owner.key_id)
    answers = [
        service.http.post(f"{path}/rotate", headers=admin.headers, json={}),
        service.http.post(path, headers=admin.headers, json={"scopes": []}),
        service.http.delete(path, headers=admin.headers),
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert me(service, owner.key).status_code == 200


def test_a_narrow_key_makes_no_wider_one(service: Service, database: str, owner: Tenant, admin: Tenant) -> None:
    narrow = new_member(
        database,
        owner.project_id,
        Role.ADMIN,
        organization_id=owner.organization_id,
        scopes=["project:read", "project:write"],
    )
    for scopes in (None, ["project:write", "jobs:read"]):
        answer = service.http.post(keys_of(narrow), headers=narrow.headers, json={"name": "wide", "scopes": scopes})
        assert answer.status_code == 403, answer.text
    assert make(service, narrow, scopes=["project:read"])["scopes"] == ["project:read"]
    widening = service.http.post(keys_of(narrow, narrow.key_id), headers=narrow.headers, json={"scopes": []})
    assert widening.status_code == 403
    taking = service.http.post(keys_of(narrow, admin.key_id, "rotate"), headers=narrow.headers, json={})
    assert taking.status_code == 403


def test_scopes_that_the_users_role_lacks_are_refused(service: Service, admin: Tenant, reader: Tenant) -> None:
    body = {"name": "vain", "user_id": reader.user_id, "scopes": ["jobs:read", "jobs:write"]}
    error = error_of(service.http.post(keys_of(admin), headers=admin.headers, json=body))
    assert error["param"] == "scopes"
    assert "a reader may not do jobs:write" in error["message"]


def test_the_key_that_asks_is_not_revoked(service: Service, admin: Tenant) -> None:
    answer = service.http.delete(keys_of(admin, admin.key_id), headers=admin.headers)
    assert "another one" in error_of(answer, 409)["message"]


def test_the_operators_key_is_a_setting(service: Service) -> None:
    path = f"/v1/organization/projects/{DEFAULT_PROJECT}/api_keys/{OPERATOR_KEY}"
    for answer in (service.http.delete(path), service.http.post(f"{path}/rotate", json={})):
        assert "IBLLM_API_KEY" in error_of(answer, 409)["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": ["jobs:fly"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"expires_in_seconds": 0}, "expires_in_seconds"),
        ({"expires_at": 1}, "expires_at"),
        ({"expires_at": 10**12}, "expires_at"),
        ({"expires_at": 4 * 10**9, "expires_in_seconds": 5}, "expires_at"),
        ({"user_id": "user-none"}, "user_id"),
    ],
)
def test_a_bad_field_is_named(service: Service, admin: Tenant, body: dict[str, Any], param: str) -> None:
    answer = service.http.post(keys_of(admin), headers=admin.headers, json={"name": "bad", **body})
    assert str(error_of(answer, 404 if param == "user_id" else 400)["param"]).startswith(param)


def test_an_owner_without_membership_and_the_operator_make_keys_anywhere(
    service: Service, database: str, owner: Tenant
) -> None:
    other = new_project(database, organization_id=owner.organization_id)
    mine = service.http.post(keys_of(other), headers=owner.headers, json={"name": "owner's"}).json()
    assert me(service, mine["value"]).json()["project"]["id"] == other.project_id
    operators = service.http.post(keys_of(other), json={"name": "operator's"}).json()
    told = me(service, operators["value"]).json()
    assert (told["role"], told["organization"]["id"]) == ("operator", owner.organization_id)


def test_a_role_grants_all_that_the_role_below_does() -> None:
    roles = list(Role)
    assert all(GRANTED[low] < GRANTED[high] for low, high in pairwise(roles))
