"""``<image>``, ``<audio>``, ``<video>``: where LLaVA and LLaMA-Factory say that media stand in the text.

ImageBind-LLM adds media to every token, so a marker's place says nothing and only its number is checked. Rows without
any marker are fine: their media belong to the whole row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media
from ibllm_core.formats.shapes.media import MEDIA_KEYS

_MARKERS = {
    modality: (f"<{modality}>", re.compile(rf"\s*<{modality}>\s*"))
    for modality in (Modality.IMAGE, Modality.AUDIO, Modality.VIDEO)
}


def without_markers(questions: Sequence[str], media: Sequence[Media], row: Mapping[str, Any]) -> list[str]:
    """The user's texts without markers; ``InvalidDataError`` where their number is not that of the media.

    ``<audio>`` and ``<video>`` are HTML too: in a row without such media and without a key for them they stay.
    """
    texts = list(questions)
    for modality, (marker, pattern) in _MARKERS.items():
        num_markers = sum(text.count(marker) for text in texts)
        num_media = _num_marked(modality, media)
        if not num_markers or (not num_media and modality is not Modality.IMAGE and modality not in _modalities(row)):
            continue
        if num_markers != num_media:
            raise InvalidDataError(
                f"the questions hold {marker} {num_markers} times, the row has {num_media} to put there: write one "
                f"{marker} for each, and list each under {_keys_of(modality)}"
            )
        texts = [pattern.sub(_gap, text).strip() if marker in text else text for text in texts]
    return texts


def _num_marked(modality: Modality, media: Iterable[Media]) -> int:
    of_it = sum(medium.modality is modality for medium in media)
    if of_it or modality is not Modality.IMAGE:
        return of_it
    # LLaVA's video and depth sets mark their frames with <image>.
    return sum(medium.modality is not Modality.AUDIO for medium in media)


def _modalities(row: Mapping[str, Any]) -> set[Modality]:
    return {modality for key, modality in MEDIA_KEYS.items() if key in row}


def _keys_of(modality: Modality) -> str:
    return " or ".join(f'"{key}"' for key, kind in MEDIA_KEYS.items() if kind is modality)


def _gap(found: re.Match[str]) -> str:
    return "\n" if "\n" in found[0] else " "
