"""Decoded media as vectors: what an encoder actor does with a bundle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.base import Encoder
from ibllm_core.errors import InvalidDataError
from workers.compile.rows import Bundle, ToEncode

NOT_FINITE = "its feature has values that are not finite: replace the file or remove its row"


def encode_bundle(bundle: Bundle, encoder: Encoder, views: int) -> Bundle:
    """The bundle with vectors in place of decoded media; a vector that is not finite makes its medium a bad one."""
    if not bundle.to_encode:
        return bundle
    vectors: dict[str, np.ndarray] = {}
    bad, began = dict(bundle.bad), time.time()
    for modality, media in bundle.to_encode.items():
        try:
            found = _encode(encoder, modality, media, views)
        except InvalidDataError:  # one of them; a vector does not depend on the others
            found = {}
            for key, inputs in _one_by_one(media):
                try:
                    found |= _encode(encoder, modality, ToEncode(keys=(key,), inputs=inputs), views)
                except InvalidDataError as error:
                    bad[key] = error.message
        for key, vectors_VF in found.items():
            if np.isfinite(vectors_VF).all():
                vectors[key] = vectors_VF
            else:
                bad[key] = NOT_FINITE
    return replace(bundle, to_encode={}, vectors=vectors, bad=bad, encoded=(began, time.time()))


def _encode(encoder: Encoder, modality: Modality, media: ToEncode, views: int) -> dict[str, np.ndarray]:
    inputs: list[Tensor] = list(torch.from_numpy(media.inputs))
    with np.errstate(over="ignore"):  # infinity is found by whoever looks at the vectors
        encoded = encoder.encode(modality, inputs).numpy().astype(np.float16)
    found_MVF = encoded.reshape(len(media.keys), -1, encoded.shape[-1])
    stored = found_MVF if found_MVF.shape[1] == views else np.repeat(found_MVF, views, axis=1)
    return dict(zip(media.keys, stored, strict=True))


def _one_by_one(media: ToEncode) -> Sequence[tuple[str, np.ndarray]]:
    return list(zip(media.keys, np.split(media.inputs, len(media.keys)), strict=True))
