"""Row groups are read one by one; what is torn is said, and the rest is read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ibllm_core.errors import InvalidDataError
from tests.ibllm_core.formats.files import bad_rows, good_rows, opened


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


def captions(count: int) -> dict[str, Any]:
    return {"image": [f"{i}.png" for i in range(count)], "text": [f"picture {i}" for i in range(count)]}


def test_pieces_are_row_groups(tmp_path: Path) -> None:
    dataset = opened(tmp_path, {"a.parquet": parquet(captions(10), row_group_size=3)})
    assert [(piece.start, piece.end, piece.first_row) for piece in dataset.pieces(1)] == [
        (0, 1, 1),
        (1, 2, 4),
        (2, 3, 7),
        (3, 4, 10),
    ]
    assert [(piece.start, piece.end) for piece in dataset.pieces()] == [(0, 4)]
    assert good_rows(dataset) == list(range(1, 11))


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array(["a.png", None, "c.png"]), "has no medium"),
        (pa.array([["a.png"], [None], ["c.png"]]), '"image"[0] is missing or null, neither'),
        (pa.array([b"x", b"", b"z"]), '"image" holds no bytes'),
        (pa.array([{"path": "a.png"}, {"path": None}, {"path": "c.png"}]), '"image" is an object, neither'),
    ],
)
def test_a_cell_that_is_no_medium(tmp_path: Path, column: Any, reason: str) -> None:
    rows = list(opened(tmp_path, {"a.parquet": parquet({"image": column, "text": ["a", "b", "c"]})}))
    assert reason in bad_rows(rows)[2]
    assert good_rows(rows) == [1, 3]


def test_a_column_of_another_type(tmp_path: Path) -> None:
    rows = list(opened(tmp_path, {"a.parquet": parquet({"image": ["a.png"], "text": [42]})}))
    assert bad_rows(rows) == {1: '"text" is a number, not text: write it as text'}


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"caf\xe9", b"good"]).view(pa.string())
    rows = list(opened(tmp_path, {"a.parquet": parquet({"image": ["a.png"] * 3, "text": broken})}))
    assert "is not UTF-8 at byte offset 3" in bad_rows(rows)[2]
    assert good_rows(rows) == [1, 3]


def test_a_row_group_that_is_torn(tmp_path: Path) -> None:
    options: dict[str, Any] = {"row_group_size": 2, "compression": "snappy", "use_dictionary": False}
    data = bytearray(parquet(captions(6), **options))
    second = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(1)
    start = second.data_page_offset
    data[start : start + second.total_compressed_size] = b"\xff" * second.total_compressed_size
    rows = list(opened(tmp_path, {"a.parquet": bytes(data)}))
    assert "the rest of row group 1 of a.parquet cannot be read" in bad_rows(rows)[3]
    assert good_rows(rows) == [1, 2, 5, 6]


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match=r"a\.parquet cannot be read as Parquet"):
        opened(tmp_path, {"a.parquet": parquet(captions(6))[:-20]})
