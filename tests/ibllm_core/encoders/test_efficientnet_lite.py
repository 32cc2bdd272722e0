from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.efficientnet_lite import EfficientNetLite0


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite0:
    return EfficientNetLite0()


def png(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_nothing_of_a_tall_picture_is_lost(encoder: EfficientNetLite0) -> None:
    pixels = encoder.preprocess(Modality.IMAGE, png(56, 224))
    assert pixels.shape == (3, 224, 224)
    assert (pixels[:, :, :80] == 255).all() and (pixels[:, :, 144:] == 255).all()
    assert pixels[:, :, 90:130].float().std() > 20


def test_a_vector_has_unit_length_and_depends_on_its_picture_alone(encoder: EfficientNetLite0) -> None:
    inputs = [encoder.preprocess(Modality.IMAGE, png(60, 60, seed)) for seed in range(5)]
    vectors = encoder.encode(Modality.IMAGE, inputs)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    assert len(vectors.unique(dim=0)) == 5
    for index in range(5):
        assert torch.equal(encoder.encode(Modality.IMAGE, inputs[index:][:2])[0], vectors[index])


def test_grey_is_zero_after_normalisation(encoder: EfficientNetLite0) -> None:
    assert (encoder.grey().float() - 127).abs().max() == 0
