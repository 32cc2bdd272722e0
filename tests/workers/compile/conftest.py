"""A real object store for what a run leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ibllm_core.storage import ObjectStore
from tests.ibllm_core.formats.object_store import running_store
from workers.compile import commit


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield ObjectStore(running.settings)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows make several of them."""
    monkeypatch.setattr(commit, "BLOCK_ROWS", 4)
    monkeypatch.setattr(commit, "PART_MEDIA", 3)
