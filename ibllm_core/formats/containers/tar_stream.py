"""The members of a tar that comes as a stream, and how it ended: ``tarfile`` takes most torn ends for the end."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.lines import BLOCK_BYTES

MAX_HEADER_BYTES = 1 << 20  # what a pax header may have, which tarfile would read whatever its size
NO_KEY = "/"  # of what is no member's: the row before it is whole


class Member(NamedTuple):
    """A file of the archive, or in its place what is wrong with it; ``key`` is its name up to the first dot."""

    key: str
    name: str
    offset: int
    size: int
    problem: str = ""


class TarStream:
    """Reads an archive forwards once; with its ``size`` in bytes the stream jumps over what is not read."""

    def __init__(self, stream: BinaryIO, *, size: int | None = None) -> None:
        self._stream = stream
        self._size = size
        self._at = 0
        self._last_read = b""

    def members(self) -> Iterator[Member]:
        """Its files in order, hidden ones and those without an extension left out; never raises."""
        member: Member | None = None
        try:
            with tarfile.open(fileobj=self, mode="r:", encoding="utf-8") as archive:  # type: ignore[call-overload]
                while info := archive.next():
                    archive.members.clear()  # else it keeps every header
                    found = _member(info)
                    if found:
                        member = found
                        yield member
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            is_torn = member is not None and self._at < member.offset + member.size
            key = member.key if member and is_torn else NO_KEY
            yield Member(key, "", 0, 0, f"is cut off or damaged ({error}), as is the archive: copy it again")
            return
        if self._last_read != bytes(tarfile.BLOCKSIZE):
            problem = f"is missing, the archive has no end mark after byte {self._at}: copy it again"
            yield Member(NO_KEY, "", 0, 0, problem)

    def content(self, member: Member) -> bytes:
        """The bytes of the member that ``members`` yielded last."""
        self.seek(member.offset)
        content = self._read_up_to(member.size)
        if len(content) < member.size:
            raise InvalidDataError(f"is cut off after {len(content)} of {member.size} bytes: copy the archive again")
        return content

    # What tarfile calls of a file:

    def tell(self) -> int:
        """See ``io``."""
        return self._at

    def read(self, size: int) -> bytes:
        """See ``io``; only headers are read by this."""
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self._last_read = self._read_up_to(size)
        return self._last_read

    def seek(self, offset: int) -> int:
        """See ``io``; forwards, or to where the stream may jump."""
        if self._size is not None:
            self._at = self._stream.seek(min(offset, self._size))
        while self._at < offset and (block := self._stream.read(min(BLOCK_BYTES, offset - self._at))):
            self._at += len(block)
        return self._at

    def _read_up_to(self, size: int) -> bytes:
        """As many bytes, fewer only at the end: a stream may return less than is asked for."""
        blocks: list[bytes] = []
        while size and (block := self._stream.read(min(size, BLOCK_BYTES))):
            blocks.append(block)
            size -= len(block)
            self._at += len(block)
        return b"".join(blocks)


def _member(info: tarfile.TarInfo) -> Member | None:
    folder, slash, base = info.name.rpartition("/")
    stem, dot, _ = base.partition(".")
    if info.isdir() or not dot or (not stem and ".." not in base):
        return None
    problem = ""
    if not info.isreg() or info.issparse():
        problem = f"has the member {info.name[:200]!r}, which is a link or another special file: store the file itself"
    elif re.match(r"[/\\]|[A-Za-z]:", info.name) or ".." in re.split(r"[/\\]", info.name):
        problem = f"has the member {info.name[:200]!r}, whose path leads out of the archive: store it by a plain name"
    return Member(folder + slash + stem, info.name, info.offset_data, info.size, problem)
