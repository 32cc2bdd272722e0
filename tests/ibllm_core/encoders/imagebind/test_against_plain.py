"""Every tower of ImageBind against an implementation written from the published facts alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.imagebind.config import (
    ImageBindConfig,
    ImuSizes,
    PictureSizes,
    PointSizes,
    TextSizes,
    Tower,
    VisionSizes,
    huge,
)
from ibllm_core.encoders.imagebind.model import ImageBind
from tests.reference import imagebind as plain

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
EXACT = {"rtol": 1e-9, "atol": 1e-11}
# Media have their released shapes and patches; widths, heads and vocabulary are small and differ between the towers.
SMALL = ImageBindConfig(
    output_dim=20,
    vision=VisionSizes(width=32, blocks=2, heads=4, side=224, patch=14),
    text=TextSizes(width=24, blocks=2, heads=3, vocab_size=64, context=77),
    audio=PictureSizes(width=24, blocks=2, heads=2, input_shape=(128, 204), kernel=16, stride=10),
    depth=PictureSizes(width=16, blocks=2, heads=4, input_shape=(224, 224), kernel=16, stride=16),
    thermal=PictureSizes(width=24, blocks=2, heads=6, input_shape=(224, 224), kernel=16, stride=16),
    imu=ImuSizes(width=16, blocks=2, heads=2, axes=6, length=2000, window=8),
    point=PointSizes(
        width=18, blocks=3, heads=3, num_points=96, num_groups=12, group_size=7, group_dim=10, projected_dim=14
    ),
)
PLAIN_TOWERS: dict[Tower, Callable[..., Tensor]] = {
    Tower.VISION: plain.vision,
    Tower.TEXT: plain.text,
    Tower.AUDIO: plain.audio,
    Tower.DEPTH: plain.depth,
    Tower.THERMAL: plain.thermal,
    Tower.IMU: plain.imu,
    Tower.POINT: plain.points,
}
WITH_A_SCALE = [modality for modality in Modality if modality not in (Modality.IMAGE, Modality.VIDEO)]


@pytest.fixture(scope="module")
def model() -> ImageBind:
    return random_model(SMALL)


@pytest.mark.parametrize("modality", Modality)
def test_float32_outputs(model: ImageBind, modality: Modality) -> None:
    clips = random_clips(SMALL, modality, 3)
    torch.testing.assert_close(model(modality, clips), expected(model, SMALL, modality, clips).float(), **CLOSE)


@pytest.mark.parametrize("modality", Modality)
def test_directions_in_float64(model: ImageBind, modality: Modality) -> None:
    """The output is float32 at best; what the head hands on keeps the digits that show a wrong epsilon."""
    clips = random_clips(SMALL, modality, 3)
    head_output = head_output_in_float64(model, modality, in_float64(clips))
    reference = expected(model, SMALL, modality, clips)
    torch.testing.assert_close(unit(head_output), unit(reference), **EXACT)


@pytest.mark.parametrize("modality", [Modality.AUDIO, Modality.VIDEO])
def test_clips_of_an_input_are_averaged(model: ImageBind, modality: Modality) -> None:
    clips_BS = random_clips(SMALL, modality, 2 * 3).unflatten(0, (2, 3))
    reference = plain.over_clips(lambda clips: expected(model, SMALL, modality, clips), clips_BS)
    torch.testing.assert_close(model(modality, clips_BS), reference.float(), **CLOSE)


@pytest.mark.parametrize("modality", WITH_A_SCALE)
def test_scales_above_100_count_as_100(modality: Modality) -> None:
    model = random_model(SMALL.only(Tower.of(modality)))
    with torch.no_grad():
        model.state_dict()[f"modality_postprocessors.{Tower.of(modality)}.1.log_logit_scale"].fill_(math.log(150))
    clips = random_clips(SMALL, modality, 1)
    outputs = model(modality, clips)
    torch.testing.assert_close(outputs.norm(), torch.tensor(100.0))
    torch.testing.assert_close(outputs / 100, expected(model, SMALL, modality, clips).float() / 100, **CLOSE)


@pytest.mark.parametrize("modality", [Modality.IMAGE, Modality.AUDIO])
def test_two_blocks_of_the_released_width(modality: Modality) -> None:
    tower = Tower.of(modality)
    sizes = huge().towers[tower].model_copy(update={"blocks": 2})
    config = ImageBindConfig(**{tower.value: sizes})
    model, clips = random_model(config), random_clips(config, modality, 1)
    reference = expected(model, config, modality, clips)
    torch.testing.assert_close(model(modality, clips), reference.float(), **CLOSE)
    head_output = head_output_in_float64(model, modality, in_float64(clips))
    torch.testing.assert_close(unit(head_output), unit(reference), **EXACT)


def expected(model: ImageBind, config: ImageBindConfig, modality: Modality, clips: Tensor) -> Tensor:
    """What the plain implementation makes of clips ``[B, ...]`` with the model's weights, in float64."""
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    tower = Tower.of(modality)
    sizes = config.towers[tower]
    what_weights_do_not_say = [sizes.heads]
    if tower is Tower.AUDIO:
        what_weights_do_not_say += [sizes.stride]
    if tower is Tower.POINT:
        what_weights_do_not_say += [sizes.num_groups, sizes.group_size]
    return PLAIN_TOWERS[tower](state, in_float64(clips), *what_weights_do_not_say)


def in_float64(clips: Tensor) -> Tensor:
    return clips.double() if clips.is_floating_point() else clips


def head_output_in_float64(model: ImageBind, modality: Modality, clips: Tensor) -> Tensor:
    model = copy.deepcopy(model).double()
    outputs: list[Tensor] = []
    head = model.get_submodule(f"modality_heads.{Tower.of(modality)}")
    head.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    model(modality, clips)
    (output,) = outputs
    assert output.dtype is torch.float64
    return output


def unit(vectors_BE: Tensor) -> Tensor:
    return vectors_BE / vectors_BE.norm(dim=-1, keepdim=True)


def random_clips(config: ImageBindConfig, modality: Modality, count: int) -> Tensor:
    """On a grid where differences are exact in float32, in which the model groups points whatever its own dtype."""
    generator = torch.Generator().manual_seed(5)
    if modality is not Modality.TEXT:
        return torch.randn(count, *config.clip_shape(modality), generator=generator).mul(1024).round() / 1024
    end = config.towers[Tower.TEXT].vocab_size - 1
    ids_BL = torch.randint(1, end, (count, *config.clip_shape(modality)), generator=generator)
    for row in range(count):
        ids_BL[row, [9 + 30 * row, -1]] = end  # of two equal ids the first one counts
    return ids_BL


def random_model(config: ImageBindConfig) -> ImageBind:
    """A model whose every weight, bias and statistic is random, so that no term of a formula hides behind a zero."""
    generator = torch.Generator().manual_seed(3)
    model = ImageBind(config).requires_grad_(False)
    state = model.state_dict()
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith((".mask", ".num_batches_tracked")):  # a constant, and a count that eval mode ignores
            continue
        if name.endswith(".running_var"):
            state[name] = 0.5 + noise.abs()
        elif name.endswith(".weight") and tensor.dim() == 1:  # of a norm
            state[name] = 1 + 0.3 * noise
        elif name.endswith("weight"):  # so that no softmax is all but one-hot, and every key counts
            state[name] = noise / math.sqrt(tensor[0].numel())
        else:
            state[name] = 0.5 * noise
    model.load_state_dict(state)
    return model
