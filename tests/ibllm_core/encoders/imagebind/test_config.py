import pytest
from pydantic import ValidationError

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.imagebind.config import ImageBindConfig, Tower, VisionSizes, huge
from tests.ibllm_core.encoders.imagebind.models import SMALL


@pytest.mark.parametrize("config", [huge(), SMALL, SMALL.only(Tower.IMU)])
def test_a_config_survives_json(config: ImageBindConfig) -> None:
    assert ImageBindConfig.model_validate_json(config.model_dump_json(exclude_none=True)) == config


def test_only_keeps_the_towers_that_are_named_and_there() -> None:
    without_point = SMALL.only(*(set(Tower) - {Tower.POINT}))
    assert without_point.point is None
    assert without_point.only(Tower.POINT, Tower.TEXT).towers == {Tower.TEXT: SMALL.text}


def test_images_and_videos_share_a_tower() -> None:
    assert {Tower.of(modality) for modality in Modality} == set(Tower)
    assert Tower.of(Modality.IMAGE) is Tower.of(Modality.VIDEO) is Tower.VISION


def test_the_released_clips_have_the_published_shapes() -> None:
    assert {modality: huge().clip_shape(modality) for modality in Modality} == {
        Modality.IMAGE: (3, 224, 224),
        Modality.VIDEO: (3, 2, 224, 224),
        Modality.AUDIO: (1, 128, 204),
        Modality.TEXT: (77,),
        Modality.DEPTH: (1, 224, 224),
        Modality.THERMAL: (1, 224, 224),
        Modality.IMU: (6, 2000),
        Modality.POINT: (8192, 3),
    }


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValidationError, match="width 32 is no multiple of heads 5"):
        VisionSizes(width=32, blocks=1, heads=5, side=28, patch=14)
