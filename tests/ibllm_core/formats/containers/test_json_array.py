"""An array's elements are found without it, wherever the blocks of the stream end."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers import json_elements
from ibllm_core.formats.containers.json_elements import read_elements
from tests.ibllm_core.formats.files import bad_rows, caption_row, good_rows, opened

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{},: \n\u00e4'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(elements=st.lists(VALUES, max_size=6), block=st.integers(1, 40), indent=st.sampled_from([None, 2]))
def test_elements_are_those_that_json_reads(elements: list[Any], block: int, indent: int | None) -> None:
    data = json.dumps(elements, indent=indent, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_elements, "BLOCK_BYTES", block)
        found = [json.loads(element) for element in read_elements(io.BytesIO(data)) if element is not None]
    assert found == elements


@given(elements=st.lists(VALUES, max_size=6), cut=st.integers(0, 60))
def test_an_array_that_was_cut_off_is_noticed(elements: list[Any], cut: int) -> None:
    data = json.dumps(elements).encode()
    kept = data[: max(1, len(data) - 1 - cut)]
    found: list[bytes | None] = []
    with pytest.raises(InvalidDataError, match=r"cut off|not closed"):
        found.extend(read_elements(io.BytesIO(kept)))
    assert [json.loads(element) for element in found if element] == elements[: len(found)]


@pytest.mark.parametrize("block", [1, 2, 3, 8, 1000])
@pytest.mark.parametrize(
    "long", [b'{"a": "0123456789"}', b'{"a": [{}, {}, {}]}', b'"01234\\"6789012"', b'{"0123456789\\\\": [1]}']
)
def test_an_element_that_is_too_long_is_skipped(monkeypatch: pytest.MonkeyPatch, block: int, long: bytes) -> None:
    monkeypatch.setattr(json_elements, "BLOCK_BYTES", block)
    monkeypatch.setattr(json_elements, "MAX_ROW_BYTES", 10)
    data = b'[{"a": 1}, ' + long + b', {"b": "]"}]'
    assert list(read_elements(io.BytesIO(data))) == [b'{"a": 1}', None, b'{"b": "]"}']


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        ("{'a': 1}", "is broken JSON"),
        ('{"a" 1}', "is broken JSON"),
        ("3", "is a number, not an object"),
        ('"[,]"', "is text, not an object"),
        ('[{"a": 1}]', "is a list, not an object"),
        ('{"caption": "\udcff"}', "is not UTF-8 at byte offset 13"),
        ("[" * 100_000 + "]" * 100_000, "is nested too deeply"),
    ],
)
def test_a_bad_element_costs_no_other(tmp_path: Path, element: str, reason: str) -> None:
    good = json.dumps(caption_row(1))
    data = f"\ufeff [{element}, {good},\n{element}\n, {good}]\n".encode(errors="surrogateescape")
    rows = list(opened(tmp_path, {"a.json": data}))
    assert good_rows(rows) == [2, 4]
    assert re.search(re.escape(reason), bad_rows(rows)[1])
    assert re.search(re.escape(reason), bad_rows(rows)[3])


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("", "the file ends before the array's ]"),
        (", ", "the file ends before the array's ]"),
        (', {"image": "b.p', "is not closed"),
        ("}]", "begins with a } that closes nothing"),
        ("] x", "stands behind the array's ]"),
    ],
)
def test_rows_before_a_broken_end_stand(tmp_path: Path, end: str, reason: str) -> None:
    rows = list(opened(tmp_path, {"a.json": f"[{json.dumps(caption_row(1))}{end}".encode()}))
    assert good_rows(rows) == [1]
    assert list(bad_rows(rows)) == [2]
    assert reason in bad_rows(rows)[2]


@pytest.mark.parametrize("second", [b"", json.dumps(caption_row(1)).encode()])
def test_a_shard_that_is_no_array_costs_no_other(tmp_path: Path, second: bytes) -> None:
    array = json.dumps([caption_row(1)]).encode()
    rows = list(opened(tmp_path, {"0.json": array, "1.json": second, "2.json": array}))
    assert good_rows(rows) == [1, 3]
    assert "the file is no JSON array as the first one is" in bad_rows(rows)[2]


def test_a_long_string_with_many_escapes_is_passed_quickly() -> None:
    element = b'{"a": "' + b"line\\n" * (1 << 20) + b'"}'
    assert list(read_elements(io.BytesIO(b"[" + element + b"]"))) == [element]
