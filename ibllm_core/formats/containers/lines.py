"""Lines of a stream of bytes, none of them longer than a row may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

MAX_ROW_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"

TOO_LONG = f"is above {MAX_ROW_BYTES >> 20} MiB, more than a row may have: keep large media in files of their own"


def read_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines without their newline; ``None`` for one above ``MAX_ROW_BYTES``, of which nothing is kept."""
    held: list[bytes] = []  # what is there of a line whose end lies in a later block
    size = 0
    while block := stream.read(BLOCK_BYTES):
        *ended, rest = block.split(b"\n")
        if ended:
            size += len(ended[0])
            yield b"".join([*held, ended[0]]) if size <= MAX_ROW_BYTES else None
            yield from ended[1:]
            held, size = [], 0
        size += len(rest)
        held = [*held, rest] if size <= MAX_ROW_BYTES else []
    if size:
        yield b"".join(held) if size <= MAX_ROW_BYTES else None


def not_utf8(error: UnicodeDecodeError) -> str:
    """What to say of a line whose bytes are no text."""
    found = error.object[error.start]
    return f"is not UTF-8 at byte offset {error.start} (0x{found:02x}): save the file as UTF-8"
