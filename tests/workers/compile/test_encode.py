"""An encoder's failures cost the media they belong to, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from workers.compile.encode import NOT_FINITE, encode_bundle
from workers.compile.rows import Bundle, PreparedRow, ToEncode


class Doubling:
    """Twice the input; refuses a batch that holds a negative number, as ImageBind refuses NaN."""

    name, licence, sha256, feature_dim = "doubling", "MIT", "d", 2
    modalities = frozenset({Modality.IMAGE})

    def weight_files(self, modality: Modality) -> Sequence[str]:
        return ()

    def preprocess(self, modality: Modality, content: bytes, *, crop_seed: int | None = None) -> Tensor:
        raise NotImplementedError

    def grey(self) -> Tensor:
        return torch.zeros(2)

    def encode(self, modality: Modality, inputs: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(inputs))
        if (stacked < 0).any():
            raise InvalidDataError("the picture is negative: replace it")
        return 2 * stacked


def bundle(**media: list[list[float]]) -> Bundle:
    """Each medium with its views."""
    inputs = np.array([view for views in media.values() for view in views], dtype=np.float32)
    return Bundle(
        input=0,
        piece=0,
        first=0,
        rows=(PreparedRow(row=1),),
        ends_piece=True,
        to_encode={Modality.IMAGE: ToEncode(keys=tuple(media), inputs=inputs)},
        bad={"z": "it is broken"},
    )


def test_vectors_come_by_key_with_their_views_and_the_decoded_media_go() -> None:
    encoded = encode_bundle(bundle(a=[[1, 2], [3, 4]], b=[[5, 6], [7, 8]]), Doubling(), views=2)
    np.testing.assert_array_equal(encoded.vectors["a"], [[2, 4], [6, 8]])
    np.testing.assert_array_equal(encoded.vectors["b"], [[10, 12], [14, 16]])
    assert encoded.vectors["a"].dtype == np.float16
    assert (encoded.to_encode, encoded.bad) == ({}, {"z": "it is broken"})
    assert encoded.encoded is not None


def test_a_feature_that_is_not_finite_is_refused() -> None:
    encoded = encode_bundle(bundle(a=[[1, 2]], b=[[float("nan"), 1]], c=[[1e30, 1]]), Doubling(), views=1)
    assert encoded.vectors.keys() == {"a"}
    assert encoded.bad == {"z": "it is broken", "b": NOT_FINITE, "c": NOT_FINITE}


def test_what_the_encoder_refuses_is_found_and_the_others_are_encoded() -> None:
    encoded = encode_bundle(bundle(a=[[1, 2]], b=[[-1, 1]], c=[[3, 4]]), Doubling(), views=1)
    assert encoded.vectors.keys() == {"a", "c"}
    assert encoded.bad["b"] == "the picture is negative: replace it"
