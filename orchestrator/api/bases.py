"""Base models, as requests name them."""

from __future__ import annotations

from ibllm_core.contract import layout
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.names import checked_key
from ibllm_core.storage import ObjectStore
from orchestrator.errors import InvalidRequestError


def require_base(store: ObjectStore, name: str, *, param: str) -> None:
    """``InvalidRequestError`` where the object store has no base of that name."""
    if not _exists(store, name):
        raise InvalidRequestError(
            f"there is no base model {name!r} in the object store: bring it in with `ibllm import-base`",
            param=param,
            code="model_not_found",
        )


def _exists(store: ObjectStore, name: str) -> bool:
    try:
        return store.exists(layout.manifest(checked_key(layout.base(name))))
    except InvalidDataError:  # what cannot be a key names nothing
        return False
