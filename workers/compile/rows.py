"""What travels through a compile run: chunks of rows as they were read, bundles of rows as they were prepared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ibllm_core.contract.marking import Marking
from ibllm_core.contract.media import Modality
from ibllm_core.formats.sample import BadRow, Sample
from ibllm_core.prompts import TokenisedSample

CHUNK_BYTES = 12 << 20  # of media, encoded and decoded: what a chunk or bundle may take in Ray's object store
# Decoded bytes of one medium, for the large kinds: fifteen pairs of pictures, three spectrograms; else a picture.
DECODED_BYTES = {Modality.VIDEO: 15 * 2 * 3 * 224 * 224, Modality.AUDIO: 3 * 128 * 204 * 4}
PICTURE_BYTES = 3 * 224 * 224


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows of one piece of one input; ``first`` counts rows of the piece that can be read or not, from 0."""

    input: int
    piece: int
    first: int
    rows: tuple[Sample | BadRow, ...]
    ends_piece: bool


@dataclass(frozen=True, kw_only=True)
class PreparedRow:
    """A row as tokens and keys of media, or the reason why it cannot be used.

    ``is_external`` where its media lie elsewhere, so that the dataset's own bytes do not say what they are.
    """

    row: int
    sample: TokenisedSample | None = None
    media: tuple[str, ...] = ()
    instruction: str = ""
    answer: str = ""
    marking: Marking | None = None
    is_external: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ToEncode:
    """Decoded media of one kind that nobody encoded yet; ``inputs`` has the views of each key, one after the other."""

    keys: tuple[str, ...]
    inputs: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A chunk's rows, with the media that it is the first to show: decoded, then as ``vectors`` ``[V, F]`` in fp16.

    ``bad`` has the media that cannot be used, with their reasons; ``encoded`` when encoding began and ended, in seconds
    of the epoch.
    """

    input: int
    piece: int
    first: int
    rows: tuple[PreparedRow, ...]
    ends_piece: bool
    to_encode: Mapping[Modality, ToEncode] = field(default_factory=dict)
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    encoded: tuple[float, float] | None = None


def chunks(
    rows: Iterable[Sample | BadRow], *, input_number: int, piece: int, views: int, size: int, skip: int = 0
) -> Iterator[Chunk]:
    """Cut a piece's rows into chunks of at most ``size``, the same way every time; the first ``skip`` are left out.

    The last chunk ends the piece, and may be empty.
    """
    held: list[Sample | BadRow] = []
    first, num_bytes = skip, 0
    for number, row in enumerate(rows):
        if number < skip:
            continue
        held.append(row)
        num_bytes += _media_bytes(row, views)
        if len(held) == size or num_bytes >= CHUNK_BYTES:
            yield Chunk(input=input_number, piece=piece, first=first, rows=tuple(held), ends_piece=False)
            first, num_bytes, held = first + len(held), 0, []
    yield Chunk(input=input_number, piece=piece, first=first, rows=tuple(held), ends_piece=True)


def _media_bytes(row: Sample | BadRow, views: int) -> int:
    if isinstance(row, BadRow):
        return 0
    encoded = sum(len(media.content or b"") for media in row.media)
    return encoded + views * sum(DECODED_BYTES.get(media.modality, PICTURE_BYTES) for media in row.media)
