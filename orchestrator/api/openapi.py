"""``/openapi.json``: what the routes take and answer, and nothing that they never do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

READING = ("get", "delete")
OF_BODIES = ("408", "413", "415")
# FastAPI states them for each route with parameters; this service answers 400 in OpenAI's shape instead.
NEVER_STATUS = "422"
NEVER_SCHEMAS = ("HTTPValidationError", "ValidationError")
KEY = {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer <key>`"}


class DescribedApi(FastAPI):
    """An application whose description holds."""

    def openapi(self) -> dict[str, Any]:
        """The description, made when it is first asked for."""
        if self.openapi_schema is None:
            self.openapi_schema = _exact(super().openapi())
        return self.openapi_schema


def operation_id(route: APIRoute) -> str:
    """The resource and the deed, such as ``jobs_cancel``; generated clients name their methods by it."""
    resource = route.endpoint.__module__.rpartition(".")[2]
    return f"{resource}_{route.name}"


def server_sent(*names: str) -> dict[str, Any]:
    """The schema of one server-sent event: ``data`` is JSON, or ``[DONE]`` in the last one; with names it has one."""
    properties: dict[str, Any] = {"data": {"type": "string"}}
    if names:
        properties |= {"event": {"enum": list(names)}, "id": {"type": "string"}}
    return {"type": "object", "properties": properties, "required": ["data"]}


def _exact(schema: dict[str, Any]) -> dict[str, Any]:
    for path in schema["paths"].values():
        for method, operation in path.items():
            never = (NEVER_STATUS, *OF_BODIES) if method in READING else (NEVER_STATUS,)
            for status in never:
                operation["responses"].pop(status, None)
            operation["security"] = [{"key": []}]
    components = schema["components"]
    for name in NEVER_SCHEMAS:
        components["schemas"].pop(name, None)
    components["securitySchemes"] = {"key": KEY}
    return schema
