"""Tables of text: delimiters, headers, quotes, and rows that do not fit."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers import delimited
from ibllm_core.formats.containers.delimited import read_records
from tests.ibllm_core.formats.files import bad_rows, data_url, good_rows, opened, picture, samples

# What a writer quotes: no lone carriage return, which ends no line here.
CELLS = st.lists(st.text(alphabet='ab",;\t\n \u00e4'), min_size=2, max_size=3)


@given(rows=st.lists(CELLS, max_size=5), delimiter=st.sampled_from([",", "\t"]))
def test_records_are_those_that_csv_wrote(rows: list[list[str]], delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(rows)
    assert list(read_records(io.BytesIO(text.getvalue().encode()), delimiter)) == rows


def answers(folder: Path, name: str, text: str) -> list[tuple[str, str | None]]:
    return [
        (sample.turns[0].answer, sample.media[0].where) for sample in samples(opened(folder, {name: text.encode()}))
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'url,caption\na.png,"a dot, ""big"""\n'),
        ("a.csv", '\ufeffurl,caption\r\n\r\na.png,"a dot, ""big"""\r\n'),
        ("a.csv", 'caption;id;URL\n"a dot, ""big""";7;a.png'),
        ("a.csv", 'url\tcaption\na.png\ta dot, "big"\n'),
        ("a.tsv", 'url\tcaption\na.png\t"a dot, ""big"""\n'),
        ("a.tsv", 'a dot, "big"\ta.png\n'),
        ("a.tsv", 'a.png\ta dot, "big"\n'),
        ("a.csv", 'http://x.org/1,"a dot"\na.png,"a dot, ""big"""\n'),
        ("a.txt", 'url,caption\na.png,"a dot, ""big"""\n'),
    ],
)
def test_dialects(tmp_path: Path, name: str, text: str) -> None:
    assert answers(tmp_path, name, text)[-1] == ('a dot, "big"', "a.png")


def test_a_quoted_cell_may_go_over_lines(tmp_path: Path) -> None:
    text = 'url,caption\na.png,"one\n\ntwo"\nb.png,"three"\n'
    assert answers(tmp_path, "a.csv", text) == [("one\n\ntwo", "a.png"), ("three", "b.png")]


def test_alpaca_in_a_table(tmp_path: Path) -> None:
    dataset = opened(tmp_path, {"a.csv": b"instruction,input,output,image\nSay hi,,Hi,\n"})
    assert dataset.format == "Alpaca instructions (CSV)"
    assert samples(dataset)[0].media == ()


def test_a_picture_of_a_megabyte_fits_in_a_cell(tmp_path: Path) -> None:
    content = picture() + bytes(1 << 20)
    (sample,) = samples(opened(tmp_path, {"a.csv": f'image,text\n"{data_url(content)}",a dot\n'.encode()}))
    assert sample.media[0].content == content


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a.png", "has 1 cell where 2 belong: fill the missing ones"),
        (b"a.png,one, two", "has 3 cells where 2 belong: quote a cell that holds a comma or a newline"),
        (b"a.png,", '"caption" is empty'),
        (b",a dot", "has no medium"),
        (b"a.png,caf\xe9", "is not UTF-8 at byte offset 9 (0xe9)"),
        (b"a.png,a\0b", '"caption" holds a NUL character'),
        (b'a.png,"open', 'opens a quote (") that nothing closes'),
        (b'a.png,"open\ncaf\xe9"', "has a quoted cell with a line that is not UTF-8 at byte offset 3"),
    ],
)
def test_a_bad_row_costs_no_other(tmp_path: Path, line: bytes, reason: str) -> None:
    rows = list(opened(tmp_path, {"a.csv": b"url,caption\nb.png,one\n" + line + b"\nc.png,two\n"}))
    assert reason in bad_rows(rows)[2]
    assert good_rows(rows)[0] == 1
    assert len(good_rows(rows)) == 2


def test_blank_lines_are_counted(tmp_path: Path) -> None:
    assert good_rows(opened(tmp_path, {"a.csv": b"\nurl,caption\n\na.png,one\n  \nb.png,two"})) == [2, 4]


def test_an_open_quote_is_not_closed_by_that_of_another_row(tmp_path: Path) -> None:
    text = b'url\tcaption\na.png\t"one\nb.png\tthe "two"\nc.png\t"three\nd.png\tfour'
    rows = list(opened(tmp_path, {"a.tsv": text}))
    assert good_rows(rows) == [2, 4]
    assert all("opens a quote" in reason for reason in bad_rows(rows).values())


def test_an_open_quote_is_not_looked_for_through_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_RECORD_LINES", 3)
    first, *others = read_records(io.BytesIO(b'"a,b\n1,2\n3,4\n5,6\n7,8"\n'), ",")
    assert isinstance(first, InvalidDataError)
    assert others == [["1", "2"], ["3", "4"], ["5", "6"], ["7", '8"']]
