"""Whatever is wrong with the weights is said with file, key, expected shape and a remedy."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.imagebind.config import Tower
from ibllm_core.encoders.imagebind.encoder import ImageBindEncoder
from ibllm_core.encoders.imagebind.weights import load_tower, open_weights, split
from ibllm_core.errors import InvalidSpecError, InvalidWeightsError
from tests.ibllm_core.encoders.imagebind.models import SMALL, random_imagebind, write_pth

NORM = "modality_trunks.imu.blocks.1.norm_1.weight"


def refusal(path: Path, file: Path | None = None, key: str | None = None) -> str:
    """The message of the error that loading a tower raises, after checking what it names."""
    with pytest.raises(InvalidWeightsError) as caught:
        load_tower(open_weights(path, None if path.is_dir() else SMALL), Tower.IMU, device="cpu", dtype=torch.float32)
    error = caught.value
    assert str(file or path) in error.message
    assert error.fields["file"] == str(file or path)
    if key:
        assert key in error.message
        assert error.fields["key"] == key
    assert pickle.loads(pickle.dumps(error)).fields == error.fields
    return error.message


def changed(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    state = dict(random_imagebind().state_dict())
    change(state)
    return write_pth(folder / "changed.pth", state)


def split_folder(folder: Path) -> Path:
    split(write_pth(folder / "all.pth"), folder / "towers", SMALL)
    return folder / "towers"


def test_a_missing_key(tmp_path: Path) -> None:
    message = refusal(changed(tmp_path, lambda state: state.pop(NORM)), key=NORM)
    assert "is missing, expected shape [16]" in message
    assert "imagebind_huge.pth" in message


def test_an_unknown_key_of_the_tower(tmp_path: Path) -> None:
    key = "modality_trunks.imu.blocks.2.norm_1.weight"
    message = refusal(changed(tmp_path, lambda state: state.update({key: torch.ones(16)})), key=key)
    assert "expected no such key" in message


def test_a_key_of_no_tower(tmp_path: Path) -> None:
    message = refusal(changed(tmp_path, lambda state: state.update(smell=torch.ones(1))), key="smell")
    assert "no tower" in message


def test_a_wrong_shape(tmp_path: Path) -> None:
    message = refusal(changed(tmp_path, lambda state: state.update({NORM: torch.ones(15)})), key=NORM)
    assert "has shape [15], expected shape [16]" in message


def test_integers_for_weights(tmp_path: Path) -> None:
    quantised = torch.ones(16, dtype=torch.int8)
    message = refusal(changed(tmp_path, lambda state: state.update({NORM: quantised})), key=NORM)
    assert "torch.int8" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path: Path, value: float) -> None:
    message = refusal(changed(tmp_path, lambda state: state[NORM][0].fill_(value)), key=NORM)
    assert "NaN or infinite" in message


def test_a_pickle_of_more_than_tensors_is_not_run(tmp_path: Path) -> None:
    pth = tmp_path / "code.pth"
    torch.save({"model": random_imagebind().state_dict(), "args": argparse.Namespace(epochs=4)}, pth)
    message = refusal(pth)
    assert "argparse.Namespace" in message
    assert "weights_only" not in message


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": {"epoch": 3}}])
def test_values_that_are_no_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "values.pth")
    assert "is a int and no tensor" in refusal(tmp_path / "values.pth", key="epoch")


def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    assert "holds a list" in refusal(tmp_path / "list.pth")


def test_an_empty_dictionary(tmp_path: Path) -> None:
    assert "no tower" in refusal(write_pth(tmp_path / "empty.pth", {}))


def test_a_truncated_file(tmp_path: Path) -> None:
    pth = write_pth(tmp_path / "torn.pth")
    pth.write_bytes(pth.read_bytes()[:-4000])
    assert "zip archive" in refusal(pth)


def test_the_format_before_pytorch_1_6_cannot_be_mapped(tmp_path: Path) -> None:
    torch.save(random_imagebind().state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert "mmap" in refusal(tmp_path / "old.pth")


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere.pth")


def test_a_folder_without_header(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    (folder / "encoder.json").unlink()
    assert "is missing" in refusal(folder, folder / "encoder.json")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}'])
def test_a_damaged_header(tmp_path: Path, content: str) -> None:
    folder = split_folder(tmp_path)
    (folder / "encoder.json").write_text(content)
    assert "split the released file again" in refusal(folder, folder / "encoder.json")


def test_a_header_whose_towers_are_not_its_configs(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    header = json.loads((folder / "encoder.json").read_text())
    del header["towers"]["audio"]
    (folder / "encoder.json").write_text(json.dumps(header))
    assert "audio" in refusal(folder, folder / "encoder.json", "towers")


def test_a_folder_without_the_towers_file(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    (folder / "imu.safetensors").unlink()
    assert "imu.safetensors" in refusal(folder, folder / "imu.safetensors")


def test_a_towers_file_of_another_shape(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    file = folder / "imu.safetensors"
    save_file(load_file(file) | {NORM: torch.ones(15)}, file)
    assert "has shape [15]" in refusal(folder, file, NORM)


def test_a_towers_file_that_was_changed_after_splitting(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    file = folder / "imu.safetensors"
    save_file(load_file(file) | {NORM: torch.ones(16)}, file)
    assert "has content" in refusal(folder, file)


def test_splitting_into_a_folder_with_files(tmp_path: Path) -> None:
    pth = write_pth(tmp_path / "all.pth")
    with pytest.raises(InvalidWeightsError, match="not empty"):
        split(pth, tmp_path, SMALL)


def test_splitting_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeightsError, match="is a folder"):
        split(tmp_path, tmp_path / "towers", SMALL)


def test_splitting_a_damaged_file_leaves_no_header(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeightsError):
        split(changed(tmp_path, lambda state: state.pop(NORM)), tmp_path / "towers", SMALL)
    assert not (tmp_path / "towers" / "encoder.json").exists()


def test_a_folder_with_another_config_than_the_given_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="other sizes"):
        open_weights(split_folder(tmp_path), SMALL.only(Tower.TEXT))


def test_a_modality_without_tower(tmp_path: Path) -> None:
    state = random_imagebind(SMALL.only(Tower.TEXT)).state_dict()
    encoder = ImageBindEncoder(write_pth(tmp_path / "text.pth", state), config=SMALL)
    with pytest.raises(InvalidWeightsError, match="no tower for point, only for text"):
        encoder.encode(Modality.POINT, [])
    with pytest.raises(InvalidWeightsError, match="no tower for image"):
        encoder.grey()


def test_another_dtype(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="float32 or bfloat16"):
        ImageBindEncoder(write_pth(tmp_path / "all.pth"), dtype=torch.float16, config=SMALL)
