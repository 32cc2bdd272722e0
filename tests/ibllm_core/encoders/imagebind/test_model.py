import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.batches import ACCELERATOR_BATCH
from ibllm_core.encoders.imagebind.blocks import Attention
from ibllm_core.encoders.imagebind.stems import ImuStem, Patches
from tests.ibllm_core.encoders.imagebind.models import SMALL, random_clips, random_imagebind

SCALED = ["text", "audio", "depth", "thermal", "imu", "point"]


@pytest.mark.parametrize("modality", list(Modality))
def test_a_clip_becomes_one_vector_whose_length_is_the_towers_scale(modality: Modality) -> None:
    model = random_imagebind()
    scale = 1.0
    if modality in SCALED:
        scale = float(model.state_dict()[f"modality_postprocessors.{modality}.1.log_logit_scale"].exp())
    vectors = model(modality, random_clips(modality, 3))
    assert vectors.shape == (3, SMALL.output_dim)
    assert torch.allclose(vectors.norm(dim=-1), torch.full((3,), scale), rtol=1e-5)
    assert not torch.allclose(vectors[0], vectors[1], rtol=1e-2)


def test_a_scale_ends_at_a_hundred() -> None:
    model = random_imagebind()
    model.get_buffer("modality_postprocessors.audio.1.log_logit_scale").fill_(7.0)
    vectors = model(Modality.AUDIO, random_clips(Modality.AUDIO, 1))
    assert vectors.norm().item() == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("modality", list(Modality))
def test_every_weight_of_a_tower_matters_to_its_vectors(modality: Modality) -> None:
    model, clips = random_imagebind(), random_clips(modality, 1)
    before = model(modality, clips)
    for key, tensor in model.state_dict().items():
        tower = "vision" if modality in ("image", "video") else modality
        if f".{tower}." not in key and not (tower == "point" and key.startswith("point_trunk")):
            continue
        if key.endswith(("mask", "num_batches_tracked")):
            continue
        kept = tensor.clone()
        tensor.add_(torch.linspace(0.1, 0.9, tensor.numel()).view(tensor.shape))
        assert not torch.equal(model(modality, clips), before), key
        tensor.copy_(kept)
    assert torch.equal(model(modality, clips), before)


@pytest.mark.parametrize("modality", [Modality.VIDEO, Modality.AUDIO])
def test_the_vectors_of_several_clips_are_averaged(modality: Modality) -> None:
    model, clips = random_imagebind(), random_clips(modality, 2, 3)
    mean = model(modality, clips.flatten(0, 1)).view(2, 3, -1).mean(1)
    assert torch.allclose(model(modality, clips), mean)


def test_an_image_is_a_clip_that_stands_still() -> None:
    model, images = random_imagebind(), random_clips(Modality.IMAGE, 2)
    still = images[:, :, None].repeat(1, 1, 2, 1, 1)
    assert torch.equal(model(Modality.IMAGE, images), model(Modality.VIDEO, still))


def test_text_ends_at_its_highest_token_and_nothing_after_it_counts() -> None:
    model = random_imagebind()
    ids = torch.tensor([[1, 5, 6, 63, 0, 0, 0, 0, 0]])
    with_tail = torch.tensor([[1, 5, 6, 63, 7, 8, 9, 2, 3]])
    other = torch.tensor([[1, 5, 7, 63, 0, 0, 0, 0, 0]])
    vectors = [model(Modality.TEXT, text) for text in (ids, with_tail, other)]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2], rtol=1e-2)


@pytest.mark.parametrize(("bias_kv", "causal"), [(False, False), (True, False), (False, True)])
def test_attention_is_torchs(bias_kv: bool, causal: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(24, 3, add_bias_kv=bias_kv, batch_first=True)
    ours = Attention(24, 3, bias_kv)
    ours.load_state_dict(theirs.state_dict())
    tokens = torch.randn(2, 5, 24)
    mask = torch.full((5, 5), float("-inf")).triu(1) if causal else None
    expected, _ = theirs(tokens, tokens, tokens, attn_mask=mask)
    assert torch.allclose(ours(tokens, mask), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "stride", "convolve"), [((1,), 3, F.conv2d), ((1,), 5, F.conv2d), ((3, 2), 5, F.conv3d)]
)
def test_patches_are_a_convolution(channels: tuple[int, ...], stride: int, convolve: object) -> None:
    torch.manual_seed(0)
    patches = Patches(channels, 5, stride, 7)
    nn.init.normal_(patches.weight)
    clips = torch.randn(2, *channels, 14, 20)
    assert callable(convolve)
    expected = convolve(clips, patches.weight, stride=(stride, stride) if channels == (1,) else (2, stride, stride))
    assert torch.allclose(patches(clips), expected.flatten(2).transpose(1, 2), atol=1e-5)


def test_a_window_of_a_signal_is_flattened_axis_by_axis() -> None:
    assert SMALL.imu
    stem = ImuStem(SMALL.imu)
    signal = torch.randn(1, 6, 40)
    tokens = stem(signal)
    expected = stem.imu_stem(signal[0, :, 8:16].reshape(1, 48))
    assert torch.allclose(tokens[0, 2], expected[0], atol=1e-6)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_vector_depends_on_neither_its_place_in_a_batch_nor_its_neighbours_to_the_bit(modality: Modality) -> None:
    model, size = random_imagebind(), ACCELERATOR_BATCH
    first, *others = random_clips(modality, 2 * size)
    expected = model(modality, torch.stack([first, *others[: size - 1]]))[0]
    for place in range(size):
        batch = [*others[place : place + size - 1]]
        batch.insert(place, first)
        assert torch.equal(model(modality, torch.stack(batch))[place], expected)
