"""What can go wrong with the embedded stack: one sentence each, with the remedy."""

from __future__ import annotations


class StackError(Exception):
    """Shown to the user as it is; the command then exits with 1."""
