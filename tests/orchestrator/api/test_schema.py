"""``/openapi.json`` is exact: schemathesis asks every route for all that it says, and for what it forbids."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from schemathesis.schemas import BaseSchema

from orchestrator.api.errors import STATUSES
from orchestrator.api.openapi import READING
from orchestrator.tenants.access import Role
from tests.orchestrator.api.routes import Route, public_routes
from tests.orchestrator.api.service import Live, Service
from tests.orchestrator.api.tenants import Tenant, new_project
from tests.orchestrator.api.things import put_things

IS_LONG = bool(os.environ.get("IBLLM_FAULTS"))
MAX_EXAMPLES = 200 if IS_LONG else 5  # of a route
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
]
PUBLIC_ADDRESS = "192.0.2.1"
OF_BODIES = {408, 413, 415}
LIMITED_BY_ALL = {  # by the size of a body, or of an address
    "ChatMessage.content",
    "ChatRequest.stop",
    "Part.text",
    "actor_emails[]",
    "actor_ids[]",
    "event_types[]",
    "project_ids[]",
    "resource_ids[]",
}


@pytest.fixture
def nothing_goes_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every host is known, and whoever sends to one is written down."""
    sent: list[str] = []
    monkeypatch.setattr("orchestrator.outbox.sending.lookup", lambda host, port: [PUBLIC_ADDRESS])
    monkeypatch.setattr("orchestrator.outbox.sending.is_public", lambda address: True)
    monkeypatch.setattr("orchestrator.outbox.sending.post", lambda target, *_, **__: sent.append(target.shown) or 204)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield sent


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.SUBMITTER])
def test_no_request_gets_an_answer_that_is_not_described(
    service: Service, live: Live, database: str, nothing_goes_out: list[str], role: Role
) -> None:
    asked: Counter[str] = Counter()
    defects: dict[tuple[str, str], str] = {}
    for event in engine.from_schema(_described(service, live, database, role)).execute():
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
        if isinstance(event, events.ScenarioFinished):
            asked[event.recorder.label] += len(event.recorder.interactions)
            for check in (check for checks in event.recorder.checks.values() for check in checks):
                if check.failure_info is not None:
                    name = (event.recorder.label, check.name)
                    defects.setdefault(name, f"{check.failure_info.failure}\n{check.failure_info.code_sample}")
    assert "\n".join(f"{name}: {text}" for name, text in defects.items()) == ""
    assert {route.name for route in public_routes(service.app)} - asked.keys() == set()


def _described(service: Service, live: Live, database: str, role: Role) -> BaseSchema:
    """The schema, to be asked by somebody of that role, whose project has one thing of each kind."""
    tenant = new_project(database, role)
    config = SchemathesisConfig(seed=1)
    project = config.projects.default
    project.update(base_url=live.base_url.removesuffix("/v1"), headers=tenant.headers, continue_on_failure=True)
    project.checks.update(included_check_names=CHECKS)
    # Some thousand cases at the limits of the schema, for whom no rule stops before a body is read.
    limits = ["coverage"] if role is Role.OPERATOR or IS_LONG else []
    project.phases.update(phases=[*limits, "fuzzing"])
    # Drawn at random, what is no text becomes one in a query, and so is rightly taken.
    project.phases.fuzzing.checks.update(excluded_check_names=["negative_data_rejection"])
    project.generation.update(
        deterministic=True, max_examples=MAX_EXAMPLES, no_shrink=True, allow_extra_parameters=False
    )
    project.parameters = {f"path.{name}": value for name, value in _things(database, tenant).items()}
    return schemathesis.openapi.from_dict(service.app.openapi(), config=config)


def _things(database: str, tenant: Tenant) -> dict[str, str]:
    """Things by their names in paths. Projects are administered beside the own one, whose quotas would stop all."""
    beside = new_project(database, organization_id=tenant.organization_id)
    administered = ("project_id", "user_id", "service_account_id", "api_key_id")
    things, others = put_things(database, tenant), put_things(database, beside)
    return {name: others[name] if name in administered else thing for name, thing in things.items() if name != "run"}


@pytest.fixture(scope="module")
def routes(service: Service) -> list[Route]:
    return public_routes(service.app)


def test_every_route_says_what_it_is_for(routes: list[Route]) -> None:
    def is_described(operation: dict[str, Any]) -> bool:
        return bool(operation["summary"] and operation["description"] and operation["tags"] and operation["security"])

    assert [route.name for route in routes if not is_described(route.operation)] == []


def test_every_route_has_a_name_of_its_own(routes: list[Route]) -> None:
    names = [route.operation["operationId"] for route in routes]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []
    assert "jobs_cancel" in names


def test_every_success_has_a_shape(routes: list[Route]) -> None:
    """JSON by a model of the contract; bytes and text say that they are."""
    shapeless = [
        f"{route.name} as {kind}"
        for route in routes
        for kind, content in route.operation["responses"]["200"]["content"].items()
        if not (content["schema"] if kind != "application/json" else "$ref" in str(content["schema"]))
    ]
    assert shapeless == []


def test_every_route_states_the_statuses_that_it_may_answer_and_no_other(routes: list[Route]) -> None:
    def expected(route: Route) -> set[str]:
        never = OF_BODIES if route.method.lower() in READING else set()
        return {"200", *(str(status) for status in STATUSES if status not in never)}

    wrong = {route.name: set(route.operation["responses"]) ^ expected(route) for route in routes}
    assert {name: difference for name, difference in wrong.items() if difference} == {}


def test_every_value_that_a_client_sends_has_limits(routes: list[Route]) -> None:
    assert {value for route in routes for value in _Unlimited(route.definitions).sent_to(route)} == LIMITED_BY_ALL


def test_every_refusal_has_openais_shape(routes: list[Route]) -> None:
    schemas = {
        answer["content"]["application/json"]["schema"]["$ref"]
        for route in routes
        for status, answer in route.operation["responses"].items()
        if status != "200"
    }
    assert schemas == {"#/components/schemas/ErrorBody"}


class _Unlimited:
    """Finds numbers, texts and lists without a limit in what routes take, by model and field."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._seen: set[str] = set()

    def sent_to(self, route: Route) -> Iterator[str]:
        for parameter in route.operation.get("parameters", []):
            if parameter["in"] != "path":  # the server limits addresses
                yield from self._in(parameter["schema"], parameter["name"])
        for content in route.operation.get("requestBody", {}).get("content", {}).values():
            yield from self._in(content["schema"], route.name)

    def _in(self, schema: dict[str, Any], name: str) -> Iterator[str]:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name in self._seen:
                return
            self._seen.add(name)
            schema = self._definitions[name]
        if not self._is_limited(schema):
            yield name
        for member in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
            yield from self._in(member, name)
        for field, value in schema.get("properties", {}).items():
            yield from self._in(value, f"{name}.{field}")
        for inner in ("items", "additionalProperties", "propertyNames"):
            if isinstance(schema.get(inner), dict) and schema.get("maxProperties") != 0:
                yield from self._in(schema[inner], name)

    @staticmethod
    def _is_limited(schema: dict[str, Any]) -> bool:
        has = schema.keys()
        if has & {"enum", "const"}:
            return True
        match schema.get("type"):
            case "integer" | "number":
                return bool(has & {"minimum", "exclusiveMinimum"} and has & {"maximum", "exclusiveMaximum"})
            case "string":
                return bool(has & {"maxLength", "pattern", "contentMediaType"})
            case "array":
                return "maxItems" in has
            case "object":
                return "maxProperties" in has or not isinstance(schema.get("additionalProperties"), dict)
        return True
