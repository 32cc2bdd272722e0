from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.base import Encoder
from ibllm_core.encoders.imagebind import encoder as encoder_module
from ibllm_core.encoders.imagebind.config import Tower
from ibllm_core.encoders.imagebind.encoder import ImageBindEncoder
from ibllm_core.encoders.imagebind.weights import split
from ibllm_core.encoders.preprocess import image
from ibllm_core.errors import InvalidDataError
from tests.ibllm_core.encoders.imagebind.models import SMALL, random_clips, random_imagebind, write_pth

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(scope="module")
def pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pth(tmp_path_factory.mktemp("imagebind") / "all.pth")


@pytest.fixture
def encoder(pth: Path) -> ImageBindEncoder:
    return ImageBindEncoder(pth, config=SMALL)


def test_it_is_an_encoder_of_what_its_weights_have_towers_for(encoder: ImageBindEncoder, tmp_path: Path) -> None:
    as_encoder: Encoder = encoder
    assert as_encoder.modalities == set(Modality)
    assert as_encoder.feature_dim == SMALL.output_dim
    assert as_encoder.licence == "CC-BY-NC-SA-4.0"
    text_alone = write_pth(tmp_path / "text.pth", random_imagebind(SMALL.only(Tower.TEXT)).state_dict())
    assert ImageBindEncoder(text_alone, config=SMALL).modalities == {Modality.TEXT}


@pytest.mark.parametrize("modality", list(Modality))
def test_vectors_are_the_models_at_unit_length(encoder: ImageBindEncoder, modality: Modality) -> None:
    clips = random_clips(modality, 3)
    expected = torch.nn.functional.normalize(random_imagebind()(modality, clips), dim=-1)
    features = encoder.encode(modality, list(clips))
    assert features.dtype == torch.float32
    assert torch.allclose(features, expected, atol=1e-6)
    assert torch.allclose(features.norm(dim=-1), torch.ones(3), atol=1e-6)


@pytest.mark.parametrize("modality", [Modality.VIDEO, Modality.AUDIO])
def test_inputs_of_several_clips_are_averaged_and_brought_to_unit_length(
    encoder: ImageBindEncoder, modality: Modality
) -> None:
    media = random_clips(modality, 2, 3)
    averaged = random_imagebind()(modality, media)
    features = encoder.encode(modality, list(media))
    assert torch.allclose(features, averaged / averaged.norm(dim=-1, keepdim=True), atol=1e-6)


def test_inputs_with_different_numbers_of_clips_go_together(encoder: ImageBindEncoder) -> None:
    media = [random_clips(Modality.AUDIO, 3), random_clips(Modality.AUDIO, seed=1), random_clips(Modality.AUDIO, 2)]
    alone = [encoder.encode(Modality.AUDIO, [medium]) for medium in media]
    assert torch.equal(encoder.encode(Modality.AUDIO, media), torch.cat(alone))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("modality", list(Modality))
def test_a_vector_is_the_same_to_the_bit_whatever_is_encoded_with_it(
    pth: Path, modality: Modality, device: str
) -> None:
    encoder = ImageBindEncoder(pth, config=SMALL, device=device)
    clips = list(random_clips(modality, 6))
    together = encoder.encode(modality, clips)
    for index, clip in enumerate(clips):
        assert torch.equal(encoder.encode(modality, [clip])[0], together[index])
    assert torch.equal(encoder.encode(modality, clips[::-1]), together.flip(0))


@pytest.mark.parametrize("modality", list(Modality))
def test_bfloat16_is_close_to_float32(pth: Path, encoder: ImageBindEncoder, modality: Modality) -> None:
    clips = list(random_clips(modality, 4))
    coarse = ImageBindEncoder(pth, config=SMALL, dtype=torch.bfloat16).encode(modality, clips)
    cosines = (coarse * encoder.encode(modality, clips)).sum(-1)
    assert coarse.dtype == torch.float32
    assert cosines.min() > 0.999
    assert not torch.equal(coarse, encoder.encode(modality, clips))


def test_uint8_is_normalised_and_floats_count_as_normalised(encoder: ImageBindEncoder) -> None:
    pixels = torch.randint(0, 256, (3, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    video = torch.stack([pixels, pixels.flip(-1)], dim=1)
    for modality, medium in [(Modality.IMAGE, pixels), (Modality.VIDEO, video)]:
        by_hand = encoder.encode(modality, [image.normalise(medium)])
        assert torch.equal(encoder.encode(modality, [medium]), by_hand)
        assert not torch.allclose(encoder.encode(modality, [medium.float()]), by_hand, rtol=1e-2)


def test_grey_is_zero_after_normalisation(encoder: ImageBindEncoder) -> None:
    assert torch.equal(encoder.grey(), torch.zeros(3, 28, 28))
    expected = random_imagebind()(Modality.IMAGE, torch.zeros(1, 3, 28, 28))
    assert torch.allclose(encoder.encode(Modality.IMAGE, [encoder.grey()]), expected, atol=1e-6)


def test_no_inputs_give_no_vectors(encoder: ImageBindEncoder) -> None:
    assert encoder.encode(Modality.AUDIO, []).shape == (0, SMALL.output_dim)


def test_the_hash_is_the_same_for_a_file_and_its_folder_and_whatever_was_loaded(pth: Path, tmp_path: Path) -> None:
    split(pth, tmp_path / "towers", SMALL)
    used = ImageBindEncoder(tmp_path / "towers")
    used.encode(Modality.TEXT, [random_clips(Modality.TEXT)])
    assert used.sha256 == ImageBindEncoder(pth, config=SMALL).sha256


def test_the_hash_moves_with_weights_dtype_and_preprocessing(
    pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_pth(tmp_path / "other.pth", random_imagebind(seed=1).state_dict())
    hashes = [
        ImageBindEncoder(pth, config=SMALL).sha256,
        ImageBindEncoder(other, config=SMALL).sha256,
        ImageBindEncoder(pth, config=SMALL, dtype=torch.bfloat16).sha256,
    ]
    monkeypatch.setattr(encoder_module, "PREPROCESSING_VERSION", 0)
    hashes.append(ImageBindEncoder(pth, config=SMALL).sha256)
    assert len(set(hashes)) == 4


def test_an_input_of_a_wrong_shape_is_named(encoder: ImageBindEncoder) -> None:
    media = [random_clips(Modality.IMAGE), torch.zeros(3, 30, 30)]
    with pytest.raises(InvalidDataError, match=r"image 2 has shape \[3, 30, 30\], expected \[3, 28, 28\]"):
        encoder.encode(Modality.IMAGE, media)


def test_an_input_that_is_not_finite_is_named(encoder: ImageBindEncoder) -> None:
    media = list(random_clips(Modality.DEPTH, 3))
    media[1][0, 0, 0] = torch.nan
    with pytest.raises(InvalidDataError, match="depth 2 of 3 has no finite vector"):
        encoder.encode(Modality.DEPTH, media)


def test_pictures_are_cropped_by_seed_or_in_the_centre(encoder: ImageBindEncoder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    content = buffer.getvalue()
    crops = [encoder.preprocess(Modality.IMAGE, content, crop_seed=seed) for seed in (None, 1, 2, 1)]
    assert torch.equal(crops[0], image.centre_crop(content))
    assert torch.equal(crops[1], image.random_crop(content, 1))
    assert torch.equal(crops[1], crops[3])
    assert not torch.equal(crops[1], crops[2])
