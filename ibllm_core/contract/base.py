"""The base of the contract's models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema


class Contract(BaseModel):
    """Unknown keys are errors, instances do not change, and ``true`` or ``"1"`` is no number, as JSON Schema has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Strict about numbers and booleans alone: strict lists and enums would refuse what JSON can say."""
        schema = handler(source)
        cls._make_strict(schema)
        return schema

    @classmethod
    def _make_strict(cls, node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") in ("int", "float", "bool"):
                node.setdefault("strict", True)  # a field that says otherwise, by pydantic's ``Strict(False)``, stands
            node = list(node.values())
        for child in node if isinstance(node, list | tuple) else ():
            cls._make_strict(child)
