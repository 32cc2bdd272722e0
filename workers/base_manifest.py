"""What the manifest of a base says of it; needs no model to be read."""

from __future__ import annotations

from typing import Any

from ibllm_core.errors import InvalidSpecError

WEIGHTS_HASH = "weights_sha256"


def weights_hash(name: str, manifest: dict[str, Any]) -> str:
    """The hash of a base's weights; ``InvalidSpecError`` for one of an older version: a manifest never changes."""
    if WEIGHTS_HASH not in manifest:
        raise InvalidSpecError(
            f"base {name} was brought in by an older version, and the hash of its weights is not known: bring it in "
            "again under a new name with `ibllm import-base`",
            base=name,
        )
    return str(manifest[WEIGHTS_HASH])
