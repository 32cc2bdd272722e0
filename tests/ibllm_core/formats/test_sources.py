import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ResponseStreamingError
from botocore.response import StreamingBody

from ibllm_core.errors import CoreError, InvalidDataError, ObjectMissingError, StorageError
from ibllm_core.formats.source import Source
from ibllm_core.formats.sources import LocalSource, S3Source, StoreSource, open_source
from tests.ibllm_core.formats.object_store import PEOPLE, RunningStore, running_store

FILES = {"train.jsonl": b"0123456789", "images/a.png": b"picture", "images/b.png": b"other"}
CLIMBING = ["../secret", "images/../../secret", "/etc/passwd", "", ".", "a\0b", "\ud800.png"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        for name, content in FILES.items():
            running.put(f"data/set/{name}", content)
        running.put("data/set/.hidden", b"x")
        running.put("data/secret", b"secret")
        running.put("files/file-1/content", FILES["train.jsonl"], bucket=running.settings.bucket)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / ".hidden").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


@pytest.fixture(params=["local", "s3"])
def source(request: pytest.FixtureRequest, folder: Path, store: RunningStore) -> Source:
    """The same folder on the disk and in a bucket."""
    location = {"local": str(folder), "s3": f"s3://{PEOPLE}/data/set/"}[request.param]
    return open_source(location, settings=store.settings, allow_local=True)


@pytest.fixture
def upload(store: RunningStore) -> StoreSource:
    return StoreSource(settings=store.settings, key="files/file-1/content", name="train.jsonl")


def test_a_folder_lists_and_reads_its_files(source: Source) -> None:
    assert source.names() == ["images/a.png", "images/b.png", "train.jsonl"]
    assert source.size("train.jsonl") == 10
    assert source.stream("train.jsonl").read() == b"0123456789"
    assert source.stream("train.jsonl", 2, 5).read() == b"234"
    assert source.stream("train.jsonl", 8).read() == b"89"
    assert source.stream("train.jsonl", 8, 100).read() == b"89"
    assert source.stream("train.jsonl", 10).read() == b""
    assert source.read_beside("./images/a.png", max_bytes=7) == b"picture"


def test_a_file_is_listed_alone_and_reads_media_beside_it(folder: Path, store: RunningStore) -> None:
    for location in (str(folder / "train.jsonl"), f"s3://{PEOPLE}/data/set/train.jsonl"):
        source = open_source(location, settings=store.settings, allow_local=True)
        assert source.uri == location
        assert source.names() == ["train.jsonl"]
        assert source.read_beside("images/b.png", max_bytes=100) == b"other"


def test_seekable_readers_serve_parquet(folder: Path, store: RunningStore) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"n": list(range(200_000))}), buffer, row_group_size=50_000)
    store.put("tables/t.parquet", buffer.getvalue())
    (folder / "t.parquet").write_bytes(buffer.getvalue())
    s3 = open_source(f"s3://{PEOPLE}/tables", settings=store.settings)
    for source in (s3, LocalSource(root=folder)):
        file = pq.ParquetFile(source.seekable("t.parquet"))
        assert file.num_row_groups == 4
        assert file.read_row_group(2)["n"][0].as_py() == 100_000


def test_an_upload_is_one_file_without_neighbours(upload: StoreSource) -> None:
    assert upload.names() == ["train.jsonl"]
    assert upload.size("train.jsonl") == 10
    assert upload.stream("train.jsonl", 3, 6).read() == b"345"
    assert upload.seekable("train.jsonl").read() == b"0123456789"
    for refuse in (lambda: upload.read_beside("a.png", 100), lambda: upload.check_beside("a.png")):
        with pytest.raises(InvalidDataError, match=r"beside the upload train.jsonl there are no files: put the media"):
            refuse()
    with pytest.raises(InvalidDataError, match="is not part of the upload"):
        upload.stream("other.jsonl")


def test_an_upload_that_is_gone_is_the_stores_fault(store: RunningStore) -> None:
    with pytest.raises(ObjectMissingError):
        StoreSource(settings=store.settings, key="files/gone", name="x.jsonl").size("x.jsonl")


@pytest.mark.parametrize("name", CLIMBING)
def test_names_that_climb_out_are_refused(source: Source, name: str) -> None:
    for use in (source.size, source.stream, source.seekable, source.check_beside, lambda n: source.read_beside(n, 9)):
        with pytest.raises(InvalidDataError, match="not a path below the dataset's folder"):
            use(name)


@pytest.mark.parametrize("name", ["link.png", "linked/secret", "chain.png"])
def test_links_that_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    (folder / "link.png").symlink_to(folder.parent / "secret")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "chain.png").symlink_to("link.png")
    source = LocalSource(root=folder)
    for use in (source.stream, source.check_beside, lambda n: source.read_beside(n, 99)):
        with pytest.raises(InvalidDataError, match=r"link that leaves the dataset's folder: put the file itself"):
            use(name)
    with pytest.raises(InvalidDataError, match="link that leaves"):
        source.names()


def test_links_inside_the_folder_are_followed(folder: Path) -> None:
    (folder / "again.png").symlink_to("images/a.png")
    (folder / "pictures").symlink_to("images")
    source = LocalSource(root=folder)
    assert source.read_beside("again.png", 99) == b"picture"
    assert source.read_beside("pictures/b.png", 99) == b"other"
    assert source.names() == ["again.png", "images/a.png", "images/b.png", "train.jsonl"]


def test_missing_files_are_the_rows_fault(source: Source) -> None:
    for use in (source.size, source.stream, lambda name: source.read_beside(name, 9)):
        with pytest.raises(InvalidDataError, match=r"images/none\.png.*(put it there|check bucket and key)"):
            use("images/none.png")


def test_what_is_no_regular_file_is_refused(folder: Path) -> None:
    for name in ("images", "train.jsonl/x"):
        with pytest.raises(InvalidDataError, match=r"is not a file|Not a directory"):
            LocalSource(root=folder).read_beside(name, 9)


def test_an_empty_file_is_found_by_the_check(folder: Path) -> None:
    (folder / "empty.png").touch()
    with pytest.raises(InvalidDataError, match=r"'empty\.png' is empty"):
        LocalSource(root=folder).check_beside("empty.png")


def test_media_over_the_limit_are_not_read(source: Source) -> None:
    with pytest.raises(InvalidDataError, match="has 7 bytes, at most 6 bytes are read"):
        source.read_beside("images/a.png", max_bytes=6)


def test_paths_need_permission() -> None:
    with pytest.raises(InvalidDataError, match=r"reads no files of its machines: upload the file, or copy .* s3://"):
        open_source("/etc", allow_local=False)


@pytest.mark.parametrize("location", ["http://127.0.0.1/x.jsonl", "file:///etc/passwd", "gs://bucket/x"])
def test_other_addresses_are_no_datasets(location: str) -> None:
    with pytest.raises(InvalidDataError, match="upload it, or copy it to s3://"):
        open_source(location, allow_local=True)


def test_nothing_at_a_location_is_said(tmp_path: Path, store: RunningStore) -> None:
    for location in (str(tmp_path / "none"), f"s3://{PEOPLE}/none", f"s3://{PEOPLE}/none/", "s3://no-bucket/x"):
        with pytest.raises(InvalidDataError, match="there is no"):
            open_source(location, settings=store.settings, allow_local=True)


@pytest.mark.parametrize("location", ["s3://ibllm/files", "s3://ibllm", "s3://IBLLM/x", "s3://people/../ibllm/files"])
def test_the_services_own_bucket_is_refused(store: RunningStore, location: str) -> None:
    with pytest.raises(InvalidDataError, match=r"own bucket|not a bucket's name|not a key"):
        open_source(location, settings=store.settings)
    with pytest.raises(
        InvalidDataError, match="own bucket and holds everybody's files: name the upload by its file id"
    ):
        S3Source(settings=store.settings, bucket=store.settings.bucket)


def test_s3_without_a_store_names_the_settings() -> None:
    with pytest.raises(InvalidDataError, match="IBLLM_S3_ENDPOINT"):
        open_source("s3://people/x")


def test_wrong_credentials_of_the_service_are_no_fault_of_the_upload(upload: StoreSource) -> None:
    settings = upload.settings.model_copy(update={"secret_key": "wrong"})
    with pytest.raises(StorageError, match="refused"):
        StoreSource(settings=settings, key=upload.key, name=upload.name).size("train.jsonl")


def test_a_stream_that_breaks_goes_on_where_it_was(store: RunningStore, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 8192
    store.put("long/x.bin", content)
    read, calls = StreamingBody.read, []

    def breaking(self: StreamingBody, amount: int | None = None) -> bytes:
        calls.append(amount)
        if len(calls) == 3:
            raise ResponseStreamingError(error="the connection broke")
        return read(self, amount)

    monkeypatch.setattr(StreamingBody, "read", breaking)
    stream = open_source(f"s3://{PEOPLE}/long/x.bin", settings=store.settings).stream("x.bin")
    assert b"".join(iter(lambda: stream.read(300_000), b"")) == content


def test_an_object_that_is_replaced_while_it_is_read_is_refused(store: RunningStore) -> None:
    store.put("moving/x.bin", b"a" * 1_000_000)
    reader = open_source(f"s3://{PEOPLE}/moving", settings=store.settings).seekable("x.bin")
    assert reader.read(10) == b"a" * 10
    store.put("moving/x.bin", b"b" * 1_000_000)
    reader.seek(900_000)
    with pytest.raises(InvalidDataError, match="was replaced while it was read: start again"):
        reader.read(10)


def test_sources_pickle_after_use(source: Source, upload: StoreSource) -> None:
    for one in (source, upload):
        one.fingerprint()
        again = pickle.loads(pickle.dumps(one))
        assert again == one
        assert again.stream("train.jsonl").read() == b"0123456789"


def test_a_relative_root_means_the_same_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder.parent)
    source = open_source("set", allow_local=True)
    monkeypatch.chdir("/")
    assert source.size("train.jsonl") == 10


def test_fingerprints_follow_content_and_names(folder: Path, store: RunningStore) -> None:
    source = LocalSource(root=folder)
    before = source.fingerprint()
    assert LocalSource(root=folder).fingerprint() == before
    (folder / "images/a.png").write_bytes(b"Picture")
    changed = source.fingerprint()
    (folder / "images/a.png").rename(folder / "images/c.png")
    assert len({before, changed, source.fingerprint()}) == 3

    bucket = open_source(f"s3://{PEOPLE}/data/set", settings=store.settings)
    before = bucket.fingerprint()
    store.put("data/set/images/a.png", b"Picture")
    changed = bucket.fingerprint()
    store.put("data/set/images/a.png", FILES["images/a.png"])
    assert changed != before == bucket.fingerprint()


def test_the_same_rows_beside_other_pictures_are_another_dataset(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.jsonl").write_bytes(FILES["train.jsonl"])
    one = LocalSource(root=folder, name="train.jsonl")
    assert one.fingerprint() != LocalSource(root=other, name="train.jsonl").fingerprint()


def test_messages_are_short_tell_no_secret_and_pickle(source: Source) -> None:
    assert "secret_key" not in repr(source)
    with pytest.raises(CoreError) as caught:
        source.read_beside("x" * 5000, max_bytes=9)
    assert len(json.dumps(caught.value.message)) < 600
    assert str(pickle.loads(pickle.dumps(caught.value))) == caught.value.message
