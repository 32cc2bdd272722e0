"""A folder that keeps the promises of an object store."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ibllm_core.errors import IntegrityError, ObjectExistsError, ObjectMissingError, StorageError
from ibllm_core.local_store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


def test_what_is_put_or_uploaded_is_got(store: LocalStore) -> None:
    store.put("a/b", b"put")
    store.upload("a/c", io.BytesIO(b"uploaded" * 300_000))
    assert store.get("a/b") == b"put"
    assert store.get("a/c") == b"uploaded" * 300_000
    assert [len(chunk) <= 1 << 20 for chunk in store.stream("a/c")] == [True] * 3
    assert store.exists("a/b") and not store.exists("a") and not store.exists("a/d")


def test_writing_again_replaces_unless_it_must_be_new(store: LocalStore) -> None:
    store.put("a", b"first")
    store.put("a", b"second")
    with pytest.raises(ObjectExistsError, match="exists already"):
        store.put("a", b"third", only_new=True)
    assert store.get("a") == b"second"
    store.delete("a")
    store.put("a", b"fourth", only_new=True)
    assert store.get("a") == b"fourth"


def test_of_many_that_write_what_must_be_new_one_wins(store: LocalStore) -> None:
    won, start = list[int](), threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        try:
            store.put("a", str(number).encode() * 1000, only_new=True)
        except ObjectExistsError:
            return
        won.append(number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    assert len(won) == 1
    assert store.get("a") == str(won[0]).encode() * 1000


def test_of_many_that_replace_one_stands_whole(store: LocalStore) -> None:
    bodies, start = [str(number).encode() * 200_000 for number in range(8)], threading.Barrier(8)

    def write(body: bytes) -> None:
        start.wait()
        store.put("a", body)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, bodies))
    assert store.get("a") in bodies
    assert [path.name for path in store.root.iterdir()] == ["a"]


@pytest.mark.parametrize("key", ["a", "folder", "folder/x/y"])
def test_what_is_not_there_is_missing(store: LocalStore, key: str) -> None:
    store.put("folder/x", b"")
    with pytest.raises(ObjectMissingError, match="does not exist"):
        store.get(key)


def test_deleting_what_is_not_there_is_no_error(store: LocalStore) -> None:
    store.delete("a/b")


def test_keys_are_listed_in_order_as_by_their_prefix(store: LocalStore) -> None:
    for key in ("b/2", "b/10", "b/sub/1", "bc/1", "bd", "c"):
        store.put(key, b"")
    assert store.list("b/") == ["b/10", "b/2", "b/sub/1"]
    assert store.list("b") == ["b/10", "b/2", "b/sub/1", "bc/1", "bd"]
    assert store.list("b/s") == ["b/sub/1"]
    assert store.list("nothing/") == []
    assert store.list("") == ["b/10", "b/2", "b/sub/1", "bc/1", "bd", "c"]


def test_what_is_being_written_is_not_there(store: LocalStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise StorageError("the source is gone")
            return super().read(3)

    with pytest.raises(StorageError, match="the source is gone"):
        store.upload("a/b", Broken(b"content"))
    assert not store.exists("a/b")
    assert store.list("a/") == []


def test_a_disk_that_refuses_is_a_storage_error(store: LocalStore) -> None:
    store.put("a", b"")
    with pytest.raises(StorageError, match="a/b cannot be written"):
        store.put("a/b", b"")
    with pytest.raises(StorageError, match="a/b cannot be written"):
        store.upload("a/b", io.BytesIO(b""))


def test_a_prefix_may_be_another_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"content")
    store = LocalStore(tmp_path / "root", {"data/x": tmp_path / "elsewhere"})
    assert store.get("data/x/file") == b"content"
    assert store.list("data/x/") == ["data/x/file"]
    assert store.uri("data/x/file") == str(tmp_path / "elsewhere" / "file")
    assert not store.exists("data/xy/file")


def test_a_folder_travels_with_its_checksums(store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"content")
    store.upload_folder("p", source, {"about": 1})
    assert store.manifest("p")["about"] == 1
    assert (store.download_folder("p", tmp_path / "cache") / "sub" / "file").read_bytes() == b"content"
    (store.root / "p/sub/file").write_bytes(b"CONTENT")
    with pytest.raises(IntegrityError, match="sub/file does not have the checksum"):
        store.download_folder("p", tmp_path / "other-cache")
