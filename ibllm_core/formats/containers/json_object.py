"""One JSON object from its bytes."""

from __future__ import annotations

import json
from typing import Any

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.lines import not_utf8
from ibllm_core.formats.shapes.values import kind_of


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse; ``InvalidDataError`` says what is wrong with the JSON, and where."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidDataError(not_utf8(error)) from error
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise InvalidDataError("is nested too deeply to be read: write the row without the nesting") from error
    except json.JSONDecodeError as error:
        if "\0" in text:
            raise InvalidDataError(
                f"holds NUL bytes (the first at byte offset {data.index(0)}): the file is damaged, copy it again"
            ) from error
        raise InvalidDataError(f"is broken JSON ({error.msg} at character {error.pos}): write it anew") from error
    except ValueError as error:  # an integer of more than 4,300 digits
        raise InvalidDataError(f"is JSON that cannot be read ({error}): write the number as text") from error
    if not isinstance(value, dict):
        raise InvalidDataError(f'is {kind_of(value)}, not an object: write {{"...": ...}}')
    return value
