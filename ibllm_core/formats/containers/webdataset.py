"""WebDataset's tars: consecutive files whose names are equal up to the first dot are a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.containers.base import Container, RawRow
from ibllm_core.formats.containers.json_object import parse_object
from ibllm_core.formats.containers.lines import MAX_ROW_BYTES, not_utf8
from ibllm_core.formats.containers.tar_stream import Member, TarStream
from ibllm_core.formats.piece import Piece
from ibllm_core.formats.sample import BadRow
from ibllm_core.formats.shapes.magic import modality_of
from ibllm_core.formats.shapes.media import MEDIA_KEYS
from ibllm_core.formats.source import Source

MAX_MEDIA_BYTES = 256 << 20  # a member is held in memory

_TEXTS = {"txt": "text", "cls": "cls"}


@dataclass(frozen=True, kw_only=True)
class WebDataset(Container):
    """One piece a file: a tar has no index, and its shards are many.

    A row has the keys of its ``.json``, ``text`` of its ``.txt``, ``cls``, and lists of bytes by modality; the files
    win over the JSON.
    """

    @property
    def label(self) -> str:
        """See ``Container``."""
        return "WebDataset"

    def rows(self, source: Source, piece: Piece) -> Iterator[RawRow | BadRow]:
        """See ``Container``; a tar that is cut off ends with a row that says so."""
        with closing(source.stream(piece.name)) as stream:
            tar = TarStream(stream)
            for row, (_, members) in enumerate(_grouped(tar), start=piece.first_row):
                try:
                    yield RawRow(row, _read_row(members, tar))
                except InvalidDataError as error:
                    yield BadRow(row=row, reason=error.message)

    def num_rows(self, source: Source, piece: Piece) -> int:
        """See ``Container``; jumps from header to header."""
        with closing(source.seekable(piece.name)) as stream:
            return sum(1 for _ in _grouped(TarStream(stream, size=source.size(piece.name))))


def _grouped(tar: TarStream) -> Iterator[tuple[str, Iterable[Member]]]:
    return groupby(tar.members(), key=attrgetter("key"))


def _read_row(members: Iterable[Member], tar: TarStream) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    stored: dict[str, Any] = {}
    media: dict[Modality, list[bytes]] = {}
    for member in members:
        if member.problem:
            raise InvalidDataError(member.problem)
        extension = member.name[len(member.key) + 1 :].lower()
        modality = _modality(extension)
        try:
            if modality:
                media.setdefault(modality, []).append(_content(tar, member, MAX_MEDIA_BYTES))
            elif extension == "json":
                stated = parse_object(_content(tar, member, MAX_ROW_BYTES))
            elif extension in _TEXTS:
                stored[_TEXTS[extension]] = _content(tar, member, MAX_ROW_BYTES).decode().strip()
            else:
                stored[extension] = None
        except UnicodeDecodeError as error:
            raise InvalidDataError(f"has the file {member.name!r}, which {not_utf8(error)}") from error
        except InvalidDataError as error:
            raise InvalidDataError(f"has the file {member.name!r}, which {error.message}") from error
    kept = {key: value for key, value in stated.items() if MEDIA_KEYS.get(key) not in media}
    return kept | stored | {str(modality): contents for modality, contents in media.items()}


def _modality(extension: str) -> Modality | None:
    """``png`` is an image, ``depth.png`` a depth map; ``seg.png`` is none of ours."""
    kind, dot, _ = extension.partition(".")
    return MEDIA_KEYS.get(kind) if dot else modality_of(f".{extension}")


def _content(tar: TarStream, member: Member, limit: int) -> bytes:
    if member.size > limit:
        raise InvalidDataError(f"has {member.size >> 20} MiB, more than {limit >> 20} MiB: store a smaller one")
    return tar.content(member)
