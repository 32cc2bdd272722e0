"""Checks of single values: what is said about them names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ibllm_core.errors import InvalidDataError


def text_of(value: object, field: str) -> str:
    """The value, which must be text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise InvalidDataError(f"{field} is {kind_of(value)}, not text: write it as text")
    if "\0" in value:
        raise InvalidDataError(f"{field} holds a NUL character (at character {value.index(chr(0))}): remove it")
    if not value.isascii():
        _check_encodable(value, field)
    return value


def filled_text(value: object, field: str, remedy: str) -> str:
    """The value, which must be text and more than blanks."""
    text = text_of(value, field)
    if not text or text.isspace():
        raise InvalidDataError(f"{field} is empty: {remedy}")
    return text


def optional_text(row: Mapping[str, Any], key: str) -> str:
    """The text under a key, empty where the key is missing or null."""
    value = row.get(key)
    return "" if value is None else text_of(value, f'"{key}"')


def required(row: Mapping[str, Any], key: str) -> Any:
    """The value under a key, which must be there."""
    if row.get(key) is None:
        raise InvalidDataError(f'has no "{key}": add it, or remove the row')
    return row[key]


def list_of(value: object, field: str, example: str) -> list[Any]:
    """The value, which must be a list."""
    if not isinstance(value, list):
        raise InvalidDataError(f"{field} is {kind_of(value)}, not a list: write {example}")
    return value


def kind_of(value: object) -> str:
    """What a value is, in JSON's words."""
    for types, kind in _KINDS:
        if isinstance(value, types):
            return kind
    return f"of the type {type(value).__name__}"


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), "missing or null"),
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "text"),
    ((bytes, bytearray), "bytes"),
    ((list, tuple), "a list"),
    (dict, "an object"),
)


def _check_encodable(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidDataError(
            f"{field} holds half of a surrogate pair (at character {error.start}): write the character itself"
        ) from error
