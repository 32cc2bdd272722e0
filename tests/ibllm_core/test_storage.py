"""What only a real object store does: it puts objects together by itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest

from ibllm_core.errors import ObjectMissingError
from ibllm_core.storage import MIN_PART_BYTES, ObjectStore
from tests.ibllm_core.formats.object_store import RunningStore, running_store


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def store(running: RunningStore) -> ObjectStore:
    return ObjectStore(running.settings)


def unfinished(running: RunningStore, key: str) -> int:
    listed = running.client.list_multipart_uploads(Bucket=running.settings.bucket, Prefix=key)
    return len(listed.get("Uploads", []))


def test_objects_are_joined_in_the_order_that_is_said(store: ObjectStore) -> None:
    bodies = [os.urandom(MIN_PART_BYTES + number) for number in range(6)] + [b"the end"]
    for number, body in enumerate(bodies):
        store.put(f"parts/{number}", body)
    order = [4, 0, 5, 2, 1, 3, 6]
    store.join("whole", [f"parts/{number}" for number in order])
    joined = hashlib.sha256(b"".join(bodies[number] for number in order))
    assert hashlib.sha256(store.get("whole")).digest() == joined.digest()
    for number in order:
        store.delete(f"parts/{number}")
    assert hashlib.sha256(store.get("whole")).digest() == joined.digest()


def test_one_small_object_can_be_joined_and_joined_again(store: ObjectStore) -> None:
    for body in (b"first", b"second"):
        store.put("part", body)
        store.join("alone", ["part"])
        assert store.get("alone") == body


def test_a_part_that_is_missing_is_named_and_nothing_is_left(store: ObjectStore, running: RunningStore) -> None:
    store.put("there", bytes(MIN_PART_BYTES))
    with pytest.raises(ObjectMissingError, match="the object store has no nowhere"):
        store.join("torn", ["there", "nowhere"])
    assert not store.exists("torn")
    assert unfinished(running, "torn") == 0


def test_what_a_dead_writer_left_is_dropped_and_no_other(store: ObjectStore, running: RunningStore) -> None:
    for key in ("dead", "dead", "deader"):
        running.client.create_multipart_upload(Bucket=running.settings.bucket, Key=key)
    store.drop_unfinished("dead")
    assert unfinished(running, "dead") == 1
    store.drop_unfinished("deader")
    assert unfinished(running, "dead") == 0
