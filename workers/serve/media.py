"""The media of a conversation as the one vector that the model sees, made as compiling a data set makes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ibllm_core.contract.chat import ChatRequest, Part
from ibllm_core.contract.media import Modality
from ibllm_core.encoders.base import Encoder
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media
from ibllm_core.formats.shapes.media import read_base64, read_media
from ibllm_core.formats.web import download
from ibllm_core.model.mixing import mix
from workers.compile.plan import EncoderPlan, fetch_weights, open_encoder

MAX_BYTES = 64 << 20  # of a medium that is fetched
FETCH_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A medium's bytes; ``field`` names its place in the request."""

    modality: Modality
    content: bytes
    field: str


class Eyes:
    """An encoder that is opened when the first medium comes; threads may share it."""

    def __init__(self, plan: EncoderPlan) -> None:
        self._plan = plan
        self._opened: Encoder | None = None
        self._opening, self._lock = threading.Lock(), threading.Lock()

    def look(self, media: list[Medium]) -> Tensor:
        """One unit vector ``[F]`` of all media; ``InvalidDataError`` names the one that cannot be used."""
        vectors = [self._vector(medium) for medium in media]
        return vectors[0] if len(vectors) == 1 else _stored(mix(vectors))

    def grey(self) -> Tensor:
        """The vector of a grey picture, which text alone was trained with under the preset ``released``."""
        return self._encoded(Modality.IMAGE, self._encoder.grey())

    def _vector(self, medium: Medium) -> Tensor:
        self._check_kind(medium)
        try:
            vector = self._encoded(medium.modality, self._encoder.preprocess(medium.modality, medium.content))
        except InvalidDataError as error:
            raise InvalidDataError(f"{medium.field}: {error.message}", param=medium.field) from error
        if not bool(vector.isfinite().all()):
            raise InvalidDataError(
                f"{medium.field}: its feature is not finite: replace the {medium.modality}", param=medium.field
            )
        return vector

    def _encoded(self, modality: Modality, inputs: Tensor) -> Tensor:
        with self._lock:  # encoders read weights at their first use, and know no threads
            fetch_weights(self._plan, self._encoder, modality)
            return _stored(self._encoder.encode(modality, [inputs])[0])

    def _check_kind(self, medium: Medium) -> None:
        if medium.modality not in self._encoder.modalities:
            known = ", ".join(sorted(self._encoder.modalities))
            raise InvalidDataError(
                f"{medium.field} is of kind {medium.modality}, but the encoder {self._plan.name} that the model was "
                f"trained with reads: {known}. Leave it out, or train with another encoder",
                param=medium.field,
            )

    @property
    def _encoder(self) -> Encoder:
        with self._opening:
            self._opened = self._opened or open_encoder(self._plan, device=self._plan.device)
        return self._opened


def read_all(request: ChatRequest, *, allow_private: bool) -> list[Medium]:
    """The bytes of all media of a request, in their order; ``InvalidDataError`` for one that cannot be had."""
    return [_read(part, field, allow_private=allow_private) for part, field in _media_of(request)]


def _media_of(request: ChatRequest) -> Iterator[tuple[Part, str]]:
    for number, message in enumerate(request.messages):
        for index, part in enumerate(message.content):
            if part.modality:
                yield part, f"messages[{number}].content[{index}]"


def _read(part: Part, field: str, *, allow_private: bool) -> Medium:
    modality = part.modality
    assert modality is not None
    try:
        if part.input_audio:
            content = read_base64(part.input_audio.data, modality, f"{field}.input_audio.data")
        else:
            url = getattr(part, part.type).url
            content = _content(read_media(url, modality, f"{field}.{part.type}.url"), allow_private=allow_private)
    except InvalidDataError as error:
        raise InvalidDataError(error.message, param=field) from error
    return Medium(modality=modality, content=content, field=field)


def _content(media: Media, *, allow_private: bool) -> bytes:
    if media.where is None:
        return media.content or b""
    return download(media.where, allow_private=allow_private, max_bytes=MAX_BYTES, timeout=FETCH_SECONDS)


def _stored(vector: Tensor) -> Tensor:
    """A vector as a data set keeps it, so that the model sees the numbers that it was trained on."""
    return vector.to(torch.float16).float()
