"""The public routes as the application has them, and requests that fit their schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from fastapi.testclient import TestClient
from httpx2 import Response

from orchestrator.api.dependencies import Allow
from orchestrator.tenants.access import Permission


@dataclass(frozen=True, kw_only=True)
class Route:
    """``operation`` is what ``/openapi.json`` says of it."""

    method: str
    path: str
    rules: tuple[Allow, ...]
    operation: dict[str, Any]
    definitions: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def permission(self) -> Permission | None:
        [rule] = self.rules
        return rule.permission

    @property
    def ids(self) -> list[str]:
        """The names in the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def has_cursor(self) -> bool:
        return any(parameter["name"] == "after" for parameter in self.operation.get("parameters", []))

    def request(self, http: TestClient, headers: dict[str, str], ids: dict[str, str], **query: str) -> Response:
        """Send what the schema asks for at least."""
        path = self.path.format(**ids)
        return http.request(self.method, path, headers=headers, params=query, **self._body())

    def _body(self) -> dict[str, Any]:
        content = self.operation.get("requestBody", {}).get("content", {})
        if "multipart/form-data" in content:
            schema = self._resolved(content["multipart/form-data"]["schema"])
            required = {name: self._resolved(schema["properties"][name]) for name in schema["required"]}
            files = {name: ("name", b"content") for name, field in required.items() if "contentMediaType" in field}
            return {"files": files, "data": {n: self._least(field) for n, field in required.items() if n not in files}}
        if "application/json" in content:
            return {"json": self._least(content["application/json"]["schema"])}
        return {}

    def _least(self, schema: dict[str, Any]) -> Any:
        """The smallest value of a schema."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        kind = schema.get("type")
        if kind == "object":
            return {name: self._least(schema["properties"][name]) for name in schema.get("required", [])}
        if kind == "array":
            return [self._least(schema["items"])] * schema.get("minItems", 0)
        return {"string": "x" * schema.get("minLength", 1), "integer": schema.get("minimum", 1)}.get(str(kind), 1)

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        schema = schema.get("anyOf", [schema])[0]
        return self.definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def public_routes(app: FastAPI) -> list[Route]:
    """All below ``/v1``, whichever router they came with."""
    openapi = app.openapi()
    return [
        Route(
            method=method,
            path=path,
            rules=tuple(_rules(context.dependant)) if context.dependant else (),
            operation=openapi["paths"][path][method.lower()],
            definitions=openapi["components"]["schemas"],
        )
        for context, path in _paths(app)
        for method in sorted(context.methods or ())
        if path.startswith("/v1")
    ]


def other_paths(app: FastAPI) -> set[str]:
    """All that is not below ``/v1``."""
    return {path for _, path in _paths(app) if not path.startswith("/v1")}


def _paths(app: FastAPI) -> Iterator[tuple[RouteContext, str]]:
    for context in iter_route_contexts(app.routes):
        yield context, (context.path or "").replace(":path}", "}")


def _rules(dependant: Dependant) -> Iterator[Allow]:
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, Allow):
            yield dependency.call
        yield from _rules(dependency)
