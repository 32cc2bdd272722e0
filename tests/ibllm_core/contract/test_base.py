"""What all shapes of the contract share: JSON is taken for what it is."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field, Strict, ValidationError

from ibllm_core.contract.base import Contract


class Inner(Contract):
    number: float


class Shape(Contract):
    count: int | None = None
    share: float = 0.0
    is_on: bool = False
    inner: tuple[Inner, ...] = ()
    by_name: dict[str, int] = Field(default_factory=dict)


@pytest.mark.parametrize(
    "value",
    [
        {"count": True},
        {"count": "1"},
        {"count": 1.0},
        {"share": False},
        {"share": "0.5"},
        {"is_on": 1},
        {"is_on": "yes"},
        {"inner": [{"number": "1"}]},
        {"by_name": {"a": True}},
        {"unknown": 1},
    ],
)
def test_a_value_of_another_type_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Shape.model_validate(value)


def test_what_json_can_say_is_taken() -> None:
    shape = Shape.model_validate({"count": 1, "share": 1, "is_on": True, "inner": [{"number": 2}], "by_name": {"a": 1}})
    assert shape == Shape(count=1, share=1.0, is_on=True, inner=(Inner(number=2.0),), by_name={"a": 1})


def test_a_field_may_say_otherwise() -> None:
    class Loose(Contract):
        loss: Annotated[float, Strict(False)] | None = None
        count: int = 0

    assert Loose.model_validate({"loss": "inf"}).loss == float("inf")
    with pytest.raises(ValidationError):
        Loose.model_validate({"count": "1"})


def test_shapes_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Shape().count = 1  # type: ignore[misc]
