"""What every dataset format becomes: samples of turns and media, or a row's number with what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from ibllm_core.contract.marking import Marking
from ibllm_core.contract.media import Modality


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question with its answer; ``context`` is Alpaca's input. Media markers are gone from the texts.

    ``marking`` is what else an evaluation needs to mark another answer by.
    """

    instruction: str
    answer: str
    context: str = ""
    marking: Marking | None = None


@dataclass(frozen=True, kw_only=True)
class Media:
    """One picture, sound, ...: its encoded bytes where they lie in the row, else where they are.

    ``where`` is a path below the dataset's folder, or an ``s3://``, ``http://`` or ``https://`` address.
    """

    modality: Modality
    content: bytes | None = None
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A row that can be read; ``row`` counts from 1 through the whole dataset, in the order of its files."""

    row: int
    turns: tuple[Turn, ...]
    media: tuple[Media, ...] = ()
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that cannot be used; ``reason`` says what is wrong and what to do about it."""

    row: int
    reason: str
