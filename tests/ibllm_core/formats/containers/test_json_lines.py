"""A line is a row, and a bad line costs no other."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ibllm_core.formats.containers import lines
from ibllm_core.formats.containers.lines import read_lines
from ibllm_core.formats.dataset import open_dataset
from ibllm_core.formats.sources import LocalSource
from tests.ibllm_core.formats.files import bad_rows, caption_row, good_rows, json_lines, opened

GOOD = json.dumps(caption_row(1)).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            b"{broken",
            "is broken JSON (Expecting property name enclosed in double quotes at character 1): write it anew",
        ),
        (b'"text"', "is text, not an object"),
        (b"[1, 2]", "is a list, not an object"),
        (b"null", "is missing or null, not an object"),
        (GOOD[:20] + b"\xff" + GOOD[20:], "is not UTF-8 at byte offset 20 (0xff): save the file as UTF-8"),
        (GOOD[:20] + b"\0" + GOOD[20:], "holds NUL bytes (the first at byte offset 20)"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is JSON that cannot be read"),
        (b'{"caption": "x"}', "has no medium"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_line_costs_no_other(tmp_path: Path, line: bytes, reason: str, place: int) -> None:
    data = [GOOD, GOOD]
    data.insert(place, line)
    rows = list(opened(tmp_path, {"a.jsonl": b"\n".join(data)}))
    assert list(bad_rows(rows)) == [place + 1]
    assert reason in bad_rows(rows)[place + 1]
    assert len(good_rows(rows)) == 2


def test_blank_lines_are_counted_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf\r\n" + GOOD + b"\r\n\n  \n" + GOOD
    assert good_rows(opened(tmp_path, {"a.jsonl": data})) == [2, 5]


@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_a_line_that_is_too_long_is_skipped(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    monkeypatch.setattr(lines, "MAX_ROW_BYTES", 5)
    data = b"12345\n123456\n\n1234567890\nab\n123456"
    assert list(read_lines(io.BytesIO(data))) == [b"12345", None, b"", None, b"ab", None]


def test_a_line_above_64_mib_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b'\n{"a": "')
        file.truncate((64 << 20) + 100)  # a hole, which reads as NUL bytes
        file.seek(0, 2)
        file.write(b'"}\n' + GOOD)
    rows = list(open_dataset(LocalSource(root=tmp_path, name="a.jsonl")))
    assert bad_rows(rows)[2].startswith("is above 64 MiB")
    assert good_rows(rows) == [1, 3]


def test_a_piece_is_about_as_large_as_is_asked_for(tmp_path: Path) -> None:
    dataset = opened(tmp_path, {"a.jsonl": json_lines(map(caption_row, range(1000)))})
    pieces = dataset.pieces(4096)
    assert all(4096 <= piece.end - piece.start < 4096 + 60 for piece in pieces[:-1])
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert good_rows(dataset.read(pieces[3]))[0] == pieces[3].first_row
