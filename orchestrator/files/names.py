"""What a file is called: its user's word for it, which is no place."""

from __future__ import annotations

from pathlib import PureWindowsPath
from urllib.parse import quote

from orchestrator.errors import InvalidRequestError

MAX_CHARACTERS = 255


def clean_name(given: str, *, param: str) -> str:
    """The name without folders, of whichever system, and without what cannot be shown; refuses one that is too long."""
    name = "".join(letter for letter in PureWindowsPath(given).name if letter.isprintable())
    if len(name) > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"the file's name has {len(name)} characters, at most {MAX_CHARACTERS} are kept: shorten it", param=param
        )
    return name if name.strip(". ") else "upload.jsonl"


def disposition(filename: str) -> str:
    """The ``Content-Disposition`` under which a browser saves a file by its name."""
    quoted = quote(filename, safe="")
    return f'attachment; filename="{filename}"' if quoted == filename else f"attachment; filename*=utf-8''{quoted}"
