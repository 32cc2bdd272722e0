"""The towers of ``huge()`` against the published keys, shapes and counts; nothing is allocated."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from ibllm_core.encoders.imagebind.config import Tower, huge
from ibllm_core.encoders.imagebind.model import ImageBind, tower_of

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    with torch.device("meta"):
        return ImageBind(huge()).state_dict()


def test_the_model_has_the_published_number_of_keys_and_values(state: dict[str, Tensor]) -> None:
    assert len(state) == 1476
    assert sum(tensor.numel() for tensor in state.values()) == 1_223_565_617


def test_without_points_the_tensors_fill_the_published_file(state: dict[str, Tensor]) -> None:
    kept = [tensor for key, tensor in state.items() if tower_of(key) is not Tower.POINT]
    overhead = 4_803_584_173 - sum(tensor.nbytes for tensor in kept)
    # An entry of the archive: its header twice, the padding to 64 bytes, and the pickled name and shape.
    assert 200 < overhead / len(kept) < 400


def test_each_trunk_has_the_published_number_of_values(state: dict[str, Tensor]) -> None:
    counts: Counter[str] = Counter()
    for key, tensor in state.items():
        if "_trunk" in key.partition(".")[0]:
            counts["point" if key.startswith("point") else key.split(".")[1]] += tensor.numel()
    head = sum(tensor.numel() for key, tensor in state.items() if key.startswith("modality_heads.point."))
    millions = {name: count / 1e6 for name, count in counts.items()}
    assert millions == pytest.approx(
        {"vision": 629.7, "text": 302.3, "audio": 85.1, "depth": 21.3, "thermal": 85.1, "imu": 18.9, "point": 22.25},
        abs=0.05,
    )
    assert head / 1e6 == pytest.approx(0.53, abs=0.005)


def test_every_key_has_the_published_name_and_shape(state: dict[str, Tensor]) -> None:
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == published()


def test_every_published_key_belongs_to_its_tower() -> None:
    for key in published():
        assert tower_of(key) == ("point" if key.startswith("point_trunk") else key.split(".")[1])
    assert tower_of("llama.layers.0.attention.wq.weight") is None
    assert tower_of("modality_trunks.smell.blocks.0.norm_1.weight") is None


def published() -> Shapes:
    """The layout of section 6.3 of the reference, written out."""
    shapes: Shapes = {}
    trunks = {"vision": (1280, 32), "text": (1024, 24), "audio": (768, 12), "depth": (384, 12)}
    trunks |= {"thermal": (768, 12), "imu": (512, 6)}
    tokens = {"vision": 257, "audio": 229, "depth": 197, "thermal": 197}
    for name, (width, blocks) in trunks.items():
        stem = f"modality_preprocessors.{name}"
        if name != "text":
            shapes[f"{stem}.cls_token"] = (1, 1, width)
        if name in tokens:
            shapes[f"{stem}.pos_embedding_helper.pos_embed"] = (1, tokens[name], width)
        for block in range(blocks):
            shapes |= block_shapes(f"modality_trunks.{name}.blocks.{block}", width, name not in ("vision", "text"))
        if name != "text":
            shapes |= head_shapes(f"modality_heads.{name}", width, 3 if name == "imu" else 2)
        if name != "vision":
            shapes[f"modality_postprocessors.{name}.1.log_logit_scale"] = ()
    shapes |= {
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
        "modality_trunks.vision.pre_transformer_layer.0.weight": (1280,),
        "modality_trunks.vision.pre_transformer_layer.0.bias": (1280,),
        "modality_preprocessors.text.pos_embed": (1, 77, 1024),
        "modality_preprocessors.text.mask": (77, 77),
        "modality_preprocessors.text.token_embedding.weight": (49408, 1024),
        "modality_heads.text.proj.0.weight": (1024,),
        "modality_heads.text.proj.0.bias": (1024,),
        "modality_heads.text.proj.1.weight": (1024, 1024),
        "modality_preprocessors.audio.rgbt_stem.proj.weight": (768, 1, 16, 16),
        "modality_preprocessors.depth.depth_stem.proj.weight": (384, 1, 16, 16),
        "modality_preprocessors.thermal.rgbt_stem.proj.weight": (768, 1, 16, 16),
        "modality_preprocessors.imu.imu_stem.proj.weight": (512, 48),
        "modality_preprocessors.imu.pos_embed": (1, 251, 512),
    }
    for stem in ("audio.rgbt_stem", "depth.depth_stem", "thermal.rgbt_stem", "imu.imu_stem"):
        width = trunks[stem.partition(".")[0]][0]
        shapes |= norm_shapes(f"modality_preprocessors.{stem}.norm_layer", width)
    return shapes | point_shapes()


def point_shapes() -> Shapes:
    encoder = "point_trunk.point_encoder"
    shapes: Shapes = {
        "point_trunk.pc_projection": (768, 512),
        f"{encoder}.cls_token": (1, 1, 384),
        f"{encoder}.cls_pos": (1, 1, 384),
        f"{encoder}.pos_embed.0.weight": (128, 3),
        f"{encoder}.pos_embed.0.bias": (128,),
        f"{encoder}.pos_embed.2.weight": (384, 128),
        f"{encoder}.pos_embed.2.bias": (384,),
        f"{encoder}.reduce_dim.weight": (384, 256),
        f"{encoder}.reduce_dim.bias": (384,),
        "modality_postprocessors.point.1.log_logit_scale": (),
    }
    for name, (first, hidden, last) in {"first_conv": (3, 128, 256), "second_conv": (512, 512, 256)}.items():
        conv = f"{encoder}.encoder.{name}"
        shapes |= {f"{conv}.0.weight": (hidden, first, 1), f"{conv}.0.bias": (hidden,)}
        shapes |= {f"{conv}.1.{part}": (hidden,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes |= {f"{conv}.1.num_batches_tracked": ()}
        shapes |= {f"{conv}.3.weight": (last, hidden, 1), f"{conv}.3.bias": (last,)}
    for index in range(12):
        block = f"{encoder}.blocks.blocks.{index}"
        shapes |= norm_shapes(f"{block}.norm1", 384) | norm_shapes(f"{block}.norm2", 384) | mlp_shapes(block, 384)
        shapes |= {f"{block}.attn.qkv.weight": (1152, 384)}
        shapes |= {f"{block}.attn.proj.weight": (384, 384), f"{block}.attn.proj.bias": (384,)}
    return shapes | norm_shapes(f"{encoder}.norm", 384) | head_shapes("modality_heads.point", 512, 2)


def block_shapes(block: str, width: int, bias_kv: bool) -> Shapes:
    learned: Shapes = {f"{block}.attn.bias_k": (1, 1, width), f"{block}.attn.bias_v": (1, 1, width)}
    return {
        f"{block}.attn.in_proj_weight": (3 * width, width),
        f"{block}.attn.in_proj_bias": (3 * width,),
        f"{block}.attn.out_proj.weight": (width, width),
        f"{block}.attn.out_proj.bias": (width,),
        **norm_shapes(f"{block}.norm_1", width),
        **norm_shapes(f"{block}.norm_2", width),
        **mlp_shapes(block, width),
        **(learned if bias_kv else {}),
    }


def mlp_shapes(block: str, width: int) -> Shapes:
    return {
        f"{block}.mlp.fc1.weight": (4 * width, width),
        f"{block}.mlp.fc1.bias": (4 * width,),
        f"{block}.mlp.fc2.weight": (width, 4 * width),
        f"{block}.mlp.fc2.bias": (width,),
    }


def norm_shapes(norm: str, width: int) -> Shapes:
    return {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}


def head_shapes(head: str, width: int, projection: int) -> Shapes:
    return norm_shapes(f"{head}.0", width) | {f"{head}.{projection}.weight": (1024, width)}
