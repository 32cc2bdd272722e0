"""The elements of a JSON array, cut out of a stream without being parsed.

A parser of the whole array (ijson, json) cannot go on behind an element that is broken; what is cut out is parsed
alone, as a line of JSON Lines is. Brackets are counted, all else is passed over by regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.lines import BLOCK_BYTES, BOM, MAX_ROW_BYTES

_BETWEEN = re.compile(rb"[\s,]*+")
_SCALAR = re.compile(rb'(?:[^\s,\[\]{}"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_NO_BRACKETS = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


def read_elements(stream: BinaryIO) -> Iterator[bytes | None]:
    """The bytes of each element; ``None`` for one above ``MAX_ROW_BYTES``, of which nothing is kept.

    Raises ``InvalidDataError`` where the array as such is broken, so that no element behind can be told.
    """
    window = _Window(stream)
    window.skip_opening()
    while window.skip_to_element():
        yield window.read_element()


class _Window:
    """The part of the stream that is looked at: from the current element's ``start``; ``at`` is where to go on."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._bytes = b""
        self._start = 0
        self._at = 0
        self._is_kept = True

    def skip_opening(self) -> None:
        self._read_more()
        self._at = len(BOM) if self._bytes.startswith(BOM) else 0
        if self._skip_between() != b"[":
            raise InvalidDataError("is missing, the file is no JSON array as the first one is: convert or remove it")
        self._at += 1

    def skip_to_element(self) -> bool:
        """Go to the next element; false at the array's end."""
        byte = self._skip_between()
        self._start = self._at
        if not byte:
            raise InvalidDataError("is missing, the file ends before the array's ]: it was cut off, copy it again")
        if byte == b"}":
            raise InvalidDataError("begins with a } that closes nothing, rows behind it cannot be read: remove it")
        if byte != b"]":
            return True
        self._at += 1
        if self._skip_between():
            raise InvalidDataError("stands behind the array's ]: write all rows into one array")
        return False

    def read_element(self) -> bytes | None:
        """Pass the element that begins here."""
        self._is_kept = True
        byte = self._byte()
        if byte in (b"[", b"{"):
            depth = 1
            while depth:
                self._at += 1
                byte = self._pass(_NO_BRACKETS)
                depth += 1 if byte in (b"[", b"{") else -1
            self._at += 1
        else:
            self._pass(_SCALAR)
        fits = self._is_kept and self._at - self._start <= MAX_ROW_BYTES
        return self._bytes[self._start : self._at] if fits else None

    def _pass(self, pattern: re.Pattern[bytes]) -> bytes:
        """Go behind what the pattern matches, to the byte that is returned."""
        while True:
            self._at = _end(pattern, self._bytes, self._at)
            byte = self._byte()
            if byte == b'"':
                self._pass_cut_string()
            elif byte:
                return byte
            else:
                self._read_on()

    def _pass_cut_string(self) -> None:
        """Go behind a string that reaches beyond what was read."""
        self._at += 1
        while True:
            self._at = _end(_IN_STRING, self._bytes, self._at)
            if self._byte() == b'"':
                self._at += 1
                return
            self._read_on()

    def _read_on(self) -> None:
        """Read more of an element; one that is too long is dropped as far as it was passed."""
        self._is_kept = self._is_kept and self._at - self._start <= MAX_ROW_BYTES
        if not self._is_kept:
            self._start = self._at
        if not self._read_more():
            raise InvalidDataError(
                "is not closed, rows behind it cannot be read: mend its quotes and brackets, or copy the file again"
            )

    def _skip_between(self) -> bytes:
        """Go behind blanks and commas, to the byte that is returned; empty at the end of the file."""
        while True:
            self._at = self._start = _end(_BETWEEN, self._bytes, self._at)
            if self._byte() or not self._read_more():
                return self._byte()

    def _byte(self) -> bytes:
        return self._bytes[self._at : self._at + 1]

    def _read_more(self) -> bool:
        """Read a block, larger for a long element, so that it is copied few times; whether there was one."""
        block = self._stream.read(max(BLOCK_BYTES, (len(self._bytes) - self._start) // 8))
        self._bytes = self._bytes[self._start :] + block
        self._at -= self._start
        self._start = 0
        return bool(block)


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    found = pattern.match(data, start)
    assert found is not None, "the patterns match nothing, too"
    return found.end()
