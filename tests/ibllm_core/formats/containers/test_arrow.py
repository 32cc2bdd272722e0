"""Record batches are found without an index and read one by one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pytest

from ibllm_core.errors import InvalidDataError
from tests.ibllm_core.formats.files import bad_rows, good_rows, opened


def stream_of(texts: Any, batch: int = 2) -> bytes:
    table = pa.table({"image": ["a.png"] * len(texts), "text": texts})
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return stream.getvalue()


def feather_of(texts: Any, batch: int = 2) -> bytes:
    stream = io.BytesIO()
    pyarrow.feather.write_feather(pa.table({"image": ["a.png"] * len(texts), "text": texts}), stream, chunksize=batch)
    return stream.getvalue()


@pytest.mark.parametrize(("name", "write"), [("a.arrow", stream_of), ("a.feather", feather_of)])
def test_pieces_are_record_batches(tmp_path: Path, name: str, write: Any) -> None:
    dataset = opened(tmp_path, {name: write([f"picture {i}" for i in range(7)])})
    pieces = dataset.pieces(1)
    assert [piece.first_row for piece in pieces] == [1, 3, 5, 7]
    assert [good_rows(dataset.read(piece)) for piece in reversed(pieces)] == [[7], [5, 6], [3, 4], [1, 2]]
    assert good_rows(dataset) == list(range(1, 8))


@pytest.mark.parametrize("target_bytes", [1, 1000, 1 << 20])
def test_a_stream_that_was_cut_off(tmp_path: Path, target_bytes: int) -> None:
    dataset = opened(tmp_path, {"a.arrow": stream_of([f"picture {i}" for i in range(6)])[:-40]})
    rows = [row for piece in dataset.pieces(target_bytes) for row in dataset.read(piece)]
    assert good_rows(rows) == [1, 2, 3, 4]
    assert "the rest of a.arrow cannot be read" in bad_rows(rows)[5]


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"caf\xe9", b"good"]).view(pa.string())
    rows = list(opened(tmp_path, {"a.arrow": stream_of(broken, batch=3)}))
    assert "is not UTF-8 at byte offset 3" in bad_rows(rows)[2]
    assert good_rows(rows) == [1, 3]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xff\xff\xff" + b"garbage" * 9, "cannot be read as Arrow"),
        (stream_of(pa.array(["a", "b"]).dictionary_encode()), "dictionary-encoded column 'text'"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        opened(tmp_path, {"a.arrow": content})
