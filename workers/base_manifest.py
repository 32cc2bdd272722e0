"""What the manifest of a base says of it; needs no model to be read."""

from __future__ import annotations

from typing import Any

from ibllm_core.errors import InvalidSpecError
from ibllm_core.storage import manifest_sha256

WEIGHTS_HASH = "weights_sha256"


def small_files(manifest: dict[str, Any]) -> dict[str, Any]:
    """The entries of everything but weights: configuration and tokenizer."""
    return {file: entry for file, entry in manifest["files"].items() if not file.endswith(".safetensors")}


def tokenizer_hash(manifest: dict[str, Any]) -> str:
    """The hash of what turns text into tokens, and of the base's configuration beside it."""
    return manifest_sha256({"files": small_files(manifest)})


def weights_hash(name: str, manifest: dict[str, Any]) -> str:
    """The hash of a base's weights; ``InvalidSpecError`` for one of an older version: a manifest never changes."""
    if WEIGHTS_HASH not in manifest:
        raise InvalidSpecError(
            f"base {name} was brought in by an older version, and the hash of its weights is not known: bring it in "
            "again under a new name with `ibllm import-base`",
            base=name,
        )
    return str(manifest[WEIGHTS_HASH])
