from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ibllm_core.encoders.imagebind.config import Tower
from ibllm_core.encoders.imagebind.folder import EncoderFolder
from ibllm_core.encoders.imagebind.model import ImageBind, tower_of
from ibllm_core.encoders.imagebind.weights import Weights, load_tower, open_weights, split
from ibllm_core.storage import sha256_of
from tests.ibllm_core.encoders.imagebind.models import SMALL, random_imagebind, write_pth

EVERY_TOWER = set(Tower)


def loaded(weights: Weights, tower: Tower, dtype: torch.dtype = torch.float32) -> ImageBind:
    return load_tower(weights, tower, device="cpu", dtype=dtype)


def assert_is_part_of(model: ImageBind, state: dict[str, Tensor], tower: Tower) -> None:
    expected = {key: tensor for key, tensor in state.items() if tower_of(key) is tower}
    assert model.state_dict().keys() == expected.keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state}])
@pytest.mark.parametrize("prefix", ["", "image_bind."])
def test_every_tower_comes_back_from_a_pth_bit_by_bit(tmp_path: Path, wrap: Any, prefix: str) -> None:
    state = random_imagebind().state_dict()
    torch.save(wrap({prefix + key: tensor for key, tensor in state.items()}), tmp_path / "all.pth")
    weights = open_weights(tmp_path / "all.pth", SMALL)
    assert weights.config == SMALL
    for tower in Tower:
        assert_is_part_of(loaded(weights, tower), state, tower)


def test_other_parts_of_a_whole_checkpoint_are_left_aside(tmp_path: Path) -> None:
    state = {f"image_bind.{key}": tensor for key, tensor in random_imagebind().state_dict().items()}
    weights = open_weights(write_pth(tmp_path / "whole.pth", {**state, "llama.norm.weight": torch.ones(4)}), SMALL)
    assert weights.config == SMALL


def test_a_split_folder_holds_the_same_to_the_bit_and_has_the_same_hashes(tmp_path: Path) -> None:
    pth, folder = write_pth(tmp_path / "all.pth"), tmp_path / "towers"
    split(pth, folder, SMALL)
    weights = open_weights(folder)
    assert weights.config == SMALL
    assert weights.tower_hashes() == open_weights(pth, SMALL).tower_hashes()
    for tower in Tower:
        assert_is_part_of(loaded(weights, tower), random_imagebind().state_dict(), tower)


def test_a_folder_has_a_file_a_tower_and_says_where_they_come_from(tmp_path: Path) -> None:
    pth, folder = write_pth(tmp_path / "all.pth"), tmp_path / "towers"
    split(pth, folder, SMALL)
    assert {file.name for file in folder.iterdir()} == {"encoder.json"} | {f"{t}.safetensors" for t in Tower}
    header = EncoderFolder(folder).header
    assert header.licence == "CC-BY-NC-SA-4.0"
    assert header.source_sha256 == sha256_of(pth)
    assert {tower_of(key) for key in load_file(folder / "imu.safetensors")} == {Tower.IMU}


def test_the_hash_of_a_tower_moves_with_each_of_its_tensors_alone(tmp_path: Path) -> None:
    state = random_imagebind().state_dict()
    before = open_weights(write_pth(tmp_path / "a.pth", state), SMALL).tower_hashes()
    state["modality_heads.imu.3.weight"][0, 0] += 1
    after = open_weights(write_pth(tmp_path / "b.pth", state), SMALL).tower_hashes()
    assert {tower for tower in Tower if before[tower] != after[tower]} == {Tower.IMU}


def test_a_file_without_points_has_no_such_tower(tmp_path: Path) -> None:
    state = random_imagebind(SMALL.only(*(EVERY_TOWER - {Tower.POINT}))).state_dict()
    weights = open_weights(write_pth(tmp_path / "huge.pth", state), SMALL)
    assert set(weights.config.towers) == EVERY_TOWER - {Tower.POINT}
    split(weights.path, tmp_path / "towers", SMALL)
    assert open_weights(tmp_path / "towers").config == weights.config


def test_only_the_tower_that_is_asked_for_is_read_from_a_pth(tmp_path: Path) -> None:
    state = random_imagebind().state_dict()
    damaged = {key: tensor for key, tensor in state.items() if "audio" not in key or "blocks.0" in key}
    damaged["modality_heads.depth.2.weight"] = torch.full((2, 2), torch.nan)
    weights = open_weights(write_pth(tmp_path / "all.pth", damaged), SMALL)
    assert_is_part_of(loaded(weights, Tower.VISION), state, Tower.VISION)


def test_only_the_tower_that_is_asked_for_is_read_from_a_folder(tmp_path: Path) -> None:
    split(write_pth(tmp_path / "all.pth"), tmp_path / "towers", SMALL)
    for file in (tmp_path / "towers").glob("*.safetensors"):
        if file.stem != "vision":
            file.unlink()
    model = loaded(open_weights(tmp_path / "towers"), Tower.VISION)
    assert_is_part_of(model, random_imagebind().state_dict(), Tower.VISION)


def test_weights_stay_when_their_file_changes(tmp_path: Path) -> None:
    pth = write_pth(tmp_path / "all.pth")
    model = loaded(open_weights(pth, SMALL), Tower.IMU)
    with pth.open("r+b") as file:
        file.write(bytes(pth.stat().st_size))
    assert_is_part_of(model, random_imagebind().state_dict(), Tower.IMU)


def test_a_tower_in_bfloat16_keeps_its_counters(tmp_path: Path) -> None:
    model = loaded(open_weights(write_pth(tmp_path / "all.pth"), SMALL), Tower.POINT, torch.bfloat16)
    dtypes = {key: tensor.dtype for key, tensor in model.state_dict().items()}
    counters = {key for key in dtypes if key.endswith("num_batches_tracked")}
    assert len(counters) == 2
    assert all(dtypes[key] == (torch.int64 if key in counters else torch.bfloat16) for key in dtypes)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
