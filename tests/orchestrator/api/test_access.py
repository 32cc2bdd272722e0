"""Who may do what, over every public route of the application; a new one is held to it without being named here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from orchestrator.db.models import ApiKey
from orchestrator.db.session import connect, session_factory
from orchestrator.tenants.access import GRANTED, Permission, Role
from tests.orchestrator.api.routes import Route, other_paths, public_routes
from tests.orchestrator.api.service import Service
from tests.orchestrator.api.tenants import Tenant, new_member, new_project
from tests.orchestrator.api.things import put_things

OPEN_PATHS = {"/health", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
OF_ORGANIZATION = (Permission.ORGANIZATION_READ, Permission.ORGANIZATION_WRITE)
WORDS = ("run", "name")  # in paths, but of no project
REFUSALS = (401, 403)


@pytest.fixture(scope="module")
def routes(service: Service) -> list[Route]:
    return public_routes(service.app)


@pytest.fixture(scope="module")
def own(database: str) -> Tenant:
    """An admin of a project."""
    return new_project(database, Role.ADMIN)


@pytest.fixture(scope="module")
def callers(database: str, own: Tenant) -> dict[str, dict[str, str]]:
    """The headers of each kind of caller in one project."""

    def member(role: Role, **changes: Any) -> Tenant:
        return new_member(database, own.project_id, role, organization_id=own.organization_id, **changes)

    past = datetime.now(UTC) - timedelta(seconds=1)
    expired, revoked = member(Role.OWNER), member(Role.OWNER)
    with session_factory(connect(database)).begin() as session:
        session.execute(update(ApiKey).where(ApiKey.id == expired.key_id).values(expires_at=past))
        session.execute(update(ApiKey).where(ApiKey.id == revoked.key_id).values(revoked_at=past))
    return {
        **{str(role): member(role).headers for role in Role},
        "no scope": member(Role.OWNER, scopes=[]).headers,
        "expired": expired.headers,
        "revoked": revoked.headers,
        "wrong": {"authorization": "Bearer sk-ib-wrong"},
        "none": {"authorization": ""},
    }


def expected(route: Route, caller: str) -> int | None:
    """How a route refuses a caller; None where it does not."""
    if caller in ("expired", "revoked", "wrong", "none"):
        return 401
    if route.permission is None:
        return None
    granted = GRANTED[Role(caller)] if caller in list(Role) else frozenset()
    return None if route.permission in granted else 403


def test_every_route_has_one_rule(routes: list[Route]) -> None:
    assert {route.name: len(route.rules) for route in routes if len(route.rules) != 1} == {}
    assert {route.permission for route in routes} == {None, *Permission}


def test_what_is_not_below_v1_is_known(service: Service) -> None:
    others = {path for path in other_paths(service.app) if not path.startswith("/internal/attempts/{attempt_id}/")}
    assert others == OPEN_PATHS


def test_every_route_lets_those_in_that_its_rule_grants_and_nobody_else(
    service: Service, routes: list[Route], callers: dict[str, dict[str, str]]
) -> None:
    wrong = []
    for route in routes:
        for caller, headers in callers.items():
            answer = route.request(service.http, headers, dict.fromkeys(route.ids, "none"))
            refusal = answer.status_code if answer.status_code in REFUSALS else None
            if refusal != expected(route, caller) or answer.status_code >= 500:
                wrong.append(f"{route.name} answers {caller} with {answer.status_code}: {answer.text[:200]}")
    assert wrong == []


def test_an_id_of_another_project_is_as_good_as_one_that_does_not_exist(
    service: Service, database: str, routes: list[Route], own: Tenant
) -> None:
    world = _World(database, own)
    wrong = []
    for route in routes:
        for name in route.ids:
            for headers, foreign in world.foreign(route) if name not in WORDS else []:
                missing = route.request(service.http, headers, {**world.mine, name: "none"})
                hidden = route.request(service.http, headers, {**world.mine, name: foreign[name]})
                told = hidden.text.replace(foreign[name], "none")
                if (hidden.status_code, told) != (404, missing.text):
                    wrong.append(f"{route.name} tells of a foreign {name}: {hidden.text} != {missing.text}")
    assert wrong == []


def test_an_id_of_another_project_is_no_cursor(
    service: Service, database: str, routes: list[Route], own: Tenant
) -> None:
    world = _World(database, own)
    wrong = []
    for route in (route for route in routes if route.has_cursor):
        for headers, foreign in world.foreign(route):
            missing = route.request(service.http, headers, world.mine, after="none")
            if (missing.status_code, missing.json()["error"]["param"]) != (404, "after"):
                wrong.append(f"{route.name} has no error for an unknown cursor: {missing.text}")
            for name, cursor in foreign.items():
                hidden = route.request(service.http, headers, world.mine, after=cursor)
                if (hidden.status_code, hidden.text.replace(cursor, "none")) != (404, missing.text):
                    wrong.append(f"{route.name} tells of the {name} {cursor}: {hidden.text}")
    assert wrong == []


class _World:
    """An admin and an owner with things of their own, beside those of a sibling project and of another organisation."""

    def __init__(self, database: str, own: Tenant) -> None:
        self._admin = own
        self._owner = new_member(database, own.project_id, Role.OWNER, organization_id=own.organization_id)
        sibling = new_project(database, organization_id=own.organization_id)
        self.mine = put_things(database, own)
        self._sibling = put_things(database, sibling)
        self._stranger = put_things(database, new_project(database))

    def foreign(self, route: Route) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
        """Whoever could ask, and things that are none of theirs; the operator sees all."""
        if route.permission in OF_ORGANIZATION:
            yield self._owner.headers, self._stranger
        elif route.permission is not Permission.INSTALLATION:
            yield self._admin.headers, self._stranger
            yield self._admin.headers, self._sibling
