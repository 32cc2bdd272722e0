"""Datasets are recognised, cut into pieces, sent to other processes, and refused with a remedy."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.errors import InvalidDataError, StorageError
from ibllm_core.formats.sources import LocalSource
from tests.ibllm_core.formats.files import bad_rows, caption_row, good_rows, json_lines, opened, picture, tar

ROWS = [caption_row(number) for number in range(7)]


def arrays() -> bytes:
    return json.dumps([*ROWS[:3], {"broken": 1}, 3, *ROWS[3:]]).encode()


def lines() -> bytes:
    return json_lines(ROWS[:2]) + b"\n  \n{broken\n" + json_lines(ROWS[2:]).rstrip()


def table() -> bytes:
    return b"url,caption\n" + b"".join(b'%d.png,"one\n\ntwo"\n\n,\n' % number for number in range(4))


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([*ROWS, {"image": None}]), stream, row_group_size=2)
    return stream.getvalue()


def arrow() -> bytes:
    stream = io.BytesIO()
    rows = pa.Table.from_pylist([*ROWS, {"image": None}])
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=3)
    return stream.getvalue()


def tarred() -> bytes:
    contents = {"png": picture(), "txt": b"x"}
    return tar({f"{number}.{kind}": content for number in range(3) for kind, content in contents.items()})[:5700]


WRITERS: dict[str, Callable[[], bytes]] = {
    "json": arrays,
    "jsonl": lines,
    "csv": table,
    "parquet": parquet,
    "arrow": arrow,
    "tar": tarred,
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("num_files", [1, 3])
def test_pieces_give_what_the_whole_gives(tmp_path: Path, kind: str, num_files: int) -> None:
    dataset = opened(tmp_path, {f"part-{number}.{kind}": WRITERS[kind]() for number in range(num_files)})
    rows = list(dataset)
    numbers = [row.row for row in rows]
    assert good_rows(rows)
    assert bad_rows(rows)
    assert numbers == sorted(set(numbers))
    for target_bytes in (1, 100, 1000, 1 << 30):
        pieces = dataset.pieces(target_bytes)
        assert [row for piece in pieces for row in dataset.read(piece)] == rows


@given(
    data=st.lists(
        st.sampled_from([*map(json.dumps, ROWS), "", " ", "{", "\u00e4", "\r", "null"]).map(str.encode), max_size=12
    ),
    end=st.sampled_from([b"", b"\n"]),
    target_bytes=st.integers(1, 200),
)
def test_lines_do_not_depend_on_where_they_are_cut(data: list[bytes], end: bytes, target_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = json_lines(ROWS[:1]) + b"\n".join(data) + end
        dataset = opened(Path(folder), {"0.jsonl": content, "1.jsonl": content})
        pieces = dataset.pieces(target_bytes)
        assert [row for piece in pieces for row in dataset.read(piece)] == list(dataset)
        assert sum(piece.end - piece.start for piece in pieces) == 2 * len(content)
        num_lines = content.count(b"\n") + (not content.endswith(b"\n"))
        assert dataset.pieces(1 << 20)[1].first_row == num_lines + 1


@pytest.mark.parametrize("kind", WRITERS)
def test_a_dataset_and_its_pieces_can_be_sent_to_another_process(tmp_path: Path, kind: str) -> None:
    dataset = opened(tmp_path, {f"a.{kind}": WRITERS[kind]()})
    sent, pieces = pickle.loads(pickle.dumps((dataset, dataset.pieces(1))))
    assert sent == dataset
    assert [row for piece in pieces for row in sent.read(piece)] == list(dataset)


class FailingSource(LocalSource):
    """A place that is lost after some reads."""

    def stream(self, name: str, start: int = 0, end: int | None = None) -> BinaryIO:
        return FailingReader(super().stream(name, start, end))

    def seekable(self, name: str) -> io.BufferedReader:
        return FailingReader(super().seekable(name))


class FailingReader(io.BufferedReader):
    num_reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.num_reads += 1
        if self.num_reads == 2:
            raise StorageError("the place is lost")
        return super().read(size)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_place_that_is_lost_is_not_a_bad_row(tmp_path: Path, kind: str) -> None:
    name = f"a.{kind}"
    dataset = opened(tmp_path, {name: WRITERS[kind]()})
    (piece,) = dataset.pieces()
    with pytest.raises(StorageError, match="the place is lost"):
        list(replace(dataset, source=FailingSource(root=tmp_path, name=name)).read(piece))


@pytest.mark.parametrize("place", [0, 5, 49])
def test_bad_rows_and_text_only_rows_do_not_decide_what_a_dataset_is(tmp_path: Path, place: int) -> None:
    talk = {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day."}]}
    rows = [talk] * 60
    rows.insert(place, talk | {"image": "a.png"})
    data = b"# a comment\n" + json_lines(rows)
    assert opened(tmp_path, {"a.jsonl": data}).format.startswith(
        "LLaVA" if place < 49 else "ShareGPT"  # the last is the 51st row
    )


@pytest.mark.parametrize("first", [b"[1, 2]", b"not json", b"3"])
def test_the_first_line_of_json_lines_may_be_anything(tmp_path: Path, first: bytes) -> None:
    dataset = opened(tmp_path, {"a.jsonl": first + b"\n" + json_lines(ROWS)})
    assert dataset.format == "image-caption pairs (JSON Lines)"
    assert good_rows(dataset) == list(range(2, 9))


def test_an_array_that_is_called_json_lines(tmp_path: Path) -> None:
    assert opened(tmp_path, {"a.jsonl": json.dumps(ROWS, indent=1).encode()}).format.endswith("(JSON array)")


def test_the_first_shard_may_be_empty(tmp_path: Path) -> None:
    dataset = opened(
        tmp_path, {"0.jsonl": b"", "1.jsonl": json_lines(ROWS), "2.jsonl": b"", "3.jsonl": json_lines(ROWS)}
    )
    assert good_rows(dataset) == list(range(1, 15))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"", "holds nothing but blanks"),
        ("a.jsonl", b"\xef\xbb\xbf \n\n", "holds nothing but blanks"),
        ("a.json", b"[]", "is JSON array and holds no rows"),
        ("a.jsonl", b"{x\n{y\n", "2 rows of which none can be read; row 1 is broken JSON"),
        ("a.json", b'{\n "data": [\n  {}\n ]\n}\n', "is one JSON object over several lines: write the list"),
        (
            "a.jsonl",
            b'{"question": "q", "answer": "a"}',
            "the keys 'answer', 'question'. Known rows are OpenAI chat: messages;",
        ),
        ("a.jsonl", gzip.compress(json_lines(ROWS)), "is compressed with gzip: unpack it"),
        ("a.tar", gzip.compress(tarred()), "is compressed with gzip: unpack it"),
        ("a.zip", b"PK\x03\x04", "is a zip archive: unpack it"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("a.jsonl", json_lines(ROWS).decode().encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("a.csv", b"url,caption,url\na,b,c\n", "names a column twice"),
        ("a.csv", b"id,name\n1,x\n", "is not JSON Lines, a JSON array, CSV, .* begins with b'id,name"),
        ("a.png", picture(), "is not JSON Lines"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
    ],
)
def test_what_is_not_recognised_is_told_what_is(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        opened(tmp_path, {name: content})


def test_the_service_needs_no_torch_for_it() -> None:
    unwanted = "{'torch', 'transformers', 'pyarrow'}"
    code = f"import sys, ibllm_core.formats.dataset; sys.exit(bool({unwanted} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
