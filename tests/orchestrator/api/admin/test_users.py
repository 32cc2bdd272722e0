"""The people of an organisation."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from sqlalchemy import select, text

from orchestrator.db.models import User
from orchestrator.db.session import connect, session_factory
from orchestrator.tenants.access import Role
from orchestrator.tenants.bootstrap import OPERATOR
from tests.orchestrator.api.admin.conftest import Administration
from tests.orchestrator.api.service import Service, error_of
from tests.orchestrator.api.tenants import Tenant, new_member

USERS = "/v1/organization/users"
WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


def test_an_owner_adds_promotes_and_removes_people(
    service: Service, owner: Tenant, administration: Administration
) -> None:
    body = {"name": "Ada", "email": " Ada@Example.com "}
    ada = service.http.post(USERS, headers=owner.headers, json=body).json()
    assert (ada["object"], ada["email"], ada["role"]) == ("organization.user", "ada@example.com", "reader")
    users = administration(owner).users
    assert users.retrieve(ada["id"]).email == "ada@example.com"
    assert [user.id for user in users.list(emails=["ada@example.com"])] == [ada["id"]]
    assert users.update(ada["id"], role="owner").role == "owner"
    assert users.delete(ada["id"]).deleted
    assert ada["id"] not in [user.id for user in users.list(limit=1)]


def test_an_email_belongs_to_one_user_of_an_organization(service: Service, owner: Tenant, stranger: Tenant) -> None:
    body = {"name": "Ada", "email": "ada@example.com"}
    assert service.http.post(USERS, headers=owner.headers, json=body).status_code == 200
    again = service.http.post(USERS, headers=owner.headers, json={**body, "email": "ADA@example.com"})
    assert error_of(again, 409)["param"] == "email"
    assert service.http.post(USERS, headers=stranger.headers, json=body).status_code == 200


@pytest.mark.parametrize("email", ["", "ada", "a b@c", "@", "a@" + "b" * 260])
def test_what_is_no_email_is_refused(service: Service, owner: Tenant, email: str) -> None:
    answer = service.http.post(USERS, headers=owner.headers, json={"name": "Ada", "email": email})
    assert error_of(answer)["param"] == "email"


def test_the_last_owner_stays(owner: Tenant, administration: Administration) -> None:
    users = administration(owner).users
    with pytest.raises(openai.ConflictError, match="the last owner"):
        users.update(owner.user_id, role="reader")
    with pytest.raises(openai.ConflictError, match="the user's own"):
        users.delete(owner.user_id)


def test_two_owners_cannot_demote_each_other_at_once(
    database: str, owner: Tenant, administration: Administration
) -> None:
    other = new_member(database, owner.project_id, Role.OWNER, organization_id=owner.organization_id)

    def demote(by: Tenant, whom: Tenant) -> bool:
        try:
            administration(by).users.update(whom.user_id, role="reader")
        except openai.ConflictError:
            return False
        return True

    watch = connect(database).execution_options(isolation_level="AUTOCOMMIT").connect()
    with watch, ThreadPoolExecutor(2) as pool, session_factory(connect(database))() as session:
        hold = select(User.id).where(User.organization_id == owner.organization_id).with_for_update()
        session.execute(hold)  # so that both requests are under way before either changes anything
        demotions = [pool.submit(demote, owner, other), pool.submit(demote, other, owner)]
        while watch.scalar(WAITING) != 2:
            assert not any(demotion.done() for demotion in demotions)
            time.sleep(0.01)  # between two looks at the condition
        session.rollback()
        assert sorted(demotion.result(60) for demotion in demotions) == [False, True]


def test_a_demoted_owners_keys_are_worth_nothing(
    service: Service, database: str, owner: Tenant, administration: Administration
) -> None:
    other = new_member(database, owner.project_id, Role.OWNER, organization_id=owner.organization_id)
    key = administration(other).admin_api_keys.create(name="of the organisation")
    administration(owner).users.update(other.user_id, role="reader")
    for secret in (other.key, key.value):
        answer = service.http.get("/v1/me", headers={"authorization": f"Bearer {secret}"})
        assert answer.status_code == 401


def test_a_removed_users_keys_are_unknown(
    service: Service, owner: Tenant, reader: Tenant, administration: Administration
) -> None:
    administration(owner).users.delete(reader.user_id)
    assert service.http.get("/v1/me", headers=reader.headers).json()["error"]["code"] == "invalid_api_key"


def test_nobody_removes_the_operator(service: Service) -> None:
    owner = service.http.post(USERS, json={"name": "Ada", "email": "second@example.com", "role": "owner"}).json()
    for answer in (
        service.http.delete(f"{USERS}/{OPERATOR}"),
        service.http.post(f"{USERS}/{OPERATOR}", json={"role": "reader"}),
    ):
        assert answer.status_code == 403
    # Though the operator owns the default organisation too, its last other owner stays.
    assert service.http.post(f"{USERS}/{owner['id']}", json={"role": "reader"}).status_code == 409
    service.http.delete(f"{USERS}/{owner['id']}")


def test_a_service_account_owns_no_organization(service: Service, owner: Tenant) -> None:
    path = f"/v1/organization/projects/{owner.project_id}/service_accounts"
    account = service.http.post(path, headers=owner.headers, json={"name": "robot"}).json()
    answer = service.http.post(f"{USERS}/{account['id']}", headers=owner.headers, json={"role": "owner"})
    assert error_of(answer, 409)["param"] == "user_id"


def test_a_key_that_may_not_act_in_projects_makes_no_owner(service: Service, database: str, owner: Tenant) -> None:
    narrow = new_member(
        database,
        owner.project_id,
        Role.OWNER,
        organization_id=owner.organization_id,
        scopes=["organization:read", "organization:write"],
    )
    body = {"name": "Eve", "email": "eve@example.com"}
    assert service.http.post(USERS, headers=narrow.headers, json={**body, "role": "owner"}).status_code == 403
    assert service.http.post(USERS, headers=narrow.headers, json=body).status_code == 200
