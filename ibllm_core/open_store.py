"""The store that the settings name: a bucket, or a folder."""

from __future__ import annotations

from pathlib import Path

from ibllm_core.local_store import LocalStore
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore, Store


def open_store(settings: StorageSettings) -> Store:
    """A bucket behind an endpoint; for ``file:///path`` that folder."""
    if settings.folder is not None:
        return LocalStore(Path(settings.folder))
    return ObjectStore(settings)
