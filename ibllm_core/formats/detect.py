"""What a file is, by its first bytes and its name."""

from __future__ import annotations

import re
from contextlib import closing
from io import BytesIO

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.arrow import Arrow
from ibllm_core.formats.containers.base import Container
from ibllm_core.formats.containers.delimited import Delimited, first_records
from ibllm_core.formats.containers.json_array import JsonArray
from ibllm_core.formats.containers.json_lines import JsonLines
from ibllm_core.formats.containers.lines import BLOCK_BYTES, BOM
from ibllm_core.formats.containers.parquet import Parquet
from ibllm_core.formats.containers.webdataset import WebDataset
from ibllm_core.formats.names import shown
from ibllm_core.formats.shapes.known import SHAPES
from ibllm_core.formats.shapes.magic import modality_of
from ibllm_core.formats.source import Source

KNOWN = "JSON Lines, a JSON array, CSV, TSV, Parquet, Arrow or WebDataset (tar)"

_HEAD_RECORDS = 50
_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*[{\]]")
_OBJECT_OVER_LINES = re.compile(rb"\{[ \t]*\r?\n")
_DELIMITERS = ("\t", ",", ";")
_BINARY = ((b"PAR1", Parquet), (b"ARROW1", Arrow), (b"\xff\xff\xff\xff", Arrow))
_UNUSABLE = (
    (b"\x1f\x8b", "is compressed with gzip: unpack it"),
    (b"BZh", "is compressed with bzip2: unpack it"),
    (b"\xfd7zXZ", "is compressed with xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it"),
    (b"PK\x03\x04", "is a zip archive: unpack it"),
    (b"version https://git-lfs", "is a pointer of Git LFS and not the file: fetch it with 'git lfs pull'"),
    (b"\xff\xfe", "is UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16: save it as UTF-8"),
)


def detect_container(source: Source, name: str) -> Container:
    """The container of a file; ``InvalidDataError`` says what was seen instead."""
    with closing(source.stream(name, 0, BLOCK_BYTES)) as stream:
        head = stream.read(BLOCK_BYTES)
    for magic, problem in _UNUSABLE:
        if head.startswith(magic):
            raise InvalidDataError(f"{shown(name)} in {source.uri} {problem}, and give the result")
    for magic, container in _BINARY:
        if head.startswith(magic):
            return container()
    if head[257:262] == b"ustar" or name.lower().endswith(".tar"):
        return WebDataset()
    text = head.removeprefix(BOM).lstrip()
    if not text:
        raise InvalidDataError(f"{shown(name)} in {source.uri} holds nothing but blanks: give a file with rows")
    extension = name.lower().rpartition(".")[2]
    if extension == "json" and _OBJECT_OVER_LINES.match(text):
        raise InvalidDataError(
            f"{shown(name)} in {source.uri} is one JSON object over several lines: write the list of its rows alone, "
            "or one row a line"
        )
    if extension not in ("csv", "tsv"):
        # A line of JSON Lines may be a list by mistake, one of objects is an array that was named so.
        if _ARRAY_OF_OBJECTS.match(text) or (extension == "json" and text.startswith(b"[")):
            return JsonArray()
        if text.startswith(b"{") or extension in ("jsonl", "ndjson", "json"):
            return JsonLines()
    return _detect_table(head, name, source.uri)


def _detect_table(head: bytes, name: str, uri: str) -> Delimited:
    """A header is one where its names make a row that some shape knows; without one, the cells tell the columns."""
    for delimiter in _DELIMITERS:
        first = next(iter(first_records(BytesIO(head), delimiter, 1)), [])
        keys = frozenset(cell.strip() for cell in first)
        if len(first) > 1 and any(shape.fits(keys) for shape in SHAPES):
            return Delimited(delimiter=delimiter, columns=None)
    for delimiter in _DELIMITERS:
        records = first_records(BytesIO(head), delimiter, _HEAD_RECORDS)
        pairs = [cells for cells in records if len(cells) == 2]
        references = [sum(_is_reference(cells[column]) for cells in pairs) for column in (0, 1)]
        if len(pairs) * 2 > len(records) and max(references) * 2 > len(pairs):
            columns = ("url", "caption") if references[0] > references[1] else ("caption", "url")
            return Delimited(delimiter=delimiter, columns=columns)
    raise InvalidDataError(
        f"{shown(name)} in {uri} is not {KNOWN}; it begins with {head[:60]!r}: convert it to one of these, a table "
        "with a header such as 'url' and 'caption'"
    )


def _is_reference(cell: str) -> bool:
    """Whether a cell is an address, or a path of a media file."""
    if not cell or any(blank in cell for blank in " \t\n"):
        return False
    return "://" in cell or modality_of(cell) is not None
