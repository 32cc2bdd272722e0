"""Identifiers: a prefix that says what the thing is, and 24 random hex digits."""

from __future__ import annotations

import secrets


def new_id(prefix: str) -> str:
    """A new identifier, such as ``ftjob-3f…``."""
    return f"{prefix}-{secrets.token_hex(12)}"
