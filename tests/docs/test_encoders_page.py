"""docs/encoders.md is held against the code: its example runs, its tables are the code's."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.base import Encoder
from ibllm_core.encoders.imagebind.config import Tower, huge
from ibllm_core.encoders.imagebind.model import ImageBind
from ibllm_core.encoders.preprocess import audio, depth, image, imu, points, text, thermal, video
from ibllm_core.encoders.registry import encoder_names, load_encoder
from tests.docs.pages import blocks, read, table
from tests.ibllm_core.encoders.preprocess.media import counting, noise, npy, picture, sound
from tests.ibllm_core.encoders.preprocess.media import video as film

PAGE = read("encoders.md")
KINDS = {kind.strip("`"): rest for kind, *rest in table(PAGE, "kind")}
LOADED: dict[Modality, Callable[[], Tensor]] = {
    Modality.IMAGE: lambda: image.centre_crop(picture(noise(40, 60))),
    Modality.VIDEO: lambda: video.load(film(counting(3))),
    Modality.AUDIO: lambda: audio.load(sound(np.sin(np.arange(16_000) / 10))),
    Modality.TEXT: lambda: text.load(b"a cat"),
    Modality.POINT: lambda: points.load(npy(np.eye(3))),
    Modality.DEPTH: lambda: depth.load(npy(np.ones((30, 40)))),
    Modality.THERMAL: lambda: thermal.load(picture(noise(30, 40, 1))),
    Modality.IMU: lambda: imu.load(npy(np.zeros((2000, 6)))),
}


def test_the_encoders_that_there_are() -> None:
    shown = {name.strip("`"): cells for name, *cells in table(PAGE, "name")}
    assert sorted(shown.keys() - {"yours"}) == encoder_names()
    _, size, _, licence = shown["efficientnet-lite0"]
    encoder = load_encoder("efficientnet-lite0")
    assert (size, licence) == (f"{encoder.feature_dim:,}", encoder.licence)
    assert shown["imagebind"][1] == f"{huge().output_dim:,}"


def test_every_kind_of_media_is_in_the_table() -> None:
    assert set(KINDS) == set(Modality)
    assert {kind for kind, cells in KINDS.items() if cells[-1] == "experimental"} == {
        modality for modality in Modality if modality.is_experimental
    }


@pytest.mark.parametrize("modality", Modality)
def test_an_input_has_the_type_and_the_shape_that_the_page_gives(modality: Modality) -> None:
    loaded = LOADED[modality]()
    shown = f"{str(loaded.dtype).removeprefix('torch.')} {list(loaded.shape)}"
    assert KINDS[modality][2] == f"`{shown}`"


def test_the_sizes_of_the_towers() -> None:
    shown = {tower.split(" ")[0]: (values, size) for tower, values, size in table(PAGE, "tower")}
    counted = {}
    for tower in Tower:
        with torch.device("meta"):
            state = ImageBind(huge().only(tower)).state_dict()
        values = sum(tensor.numel() for tensor in state.values())
        counted[tower.value] = (f"{values:,}", f"{values * 4 / 1e9:.2f} GB")
    assert shown == counted


def test_a_program_encodes_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.png").write_bytes(picture(noise(20, 30)))
    names: dict[str, Any] = {}
    exec(compile(blocks(PAGE, "python")[0], "encoders.md", "exec"), names)
    assert names["features"].shape == (1, names["encoder"].feature_dim)


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """The page's encoder, its package installed as pip would."""
    (project,) = (tomllib.loads(block)["project"] for block in blocks(PAGE, "toml"))
    _, code = blocks(PAGE, "python")
    ((name, value),) = project["entry-points"]["ibllm.encoders"].items()
    info = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[ibllm.encoders]\n{name} = {value}\n")
    (file,) = re.findall(r'"""(\w+\.py):', code)
    (tmp_path / file).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, file.removesuffix(".py"), raising=False)
    return load_encoder("colours")


def test_the_pages_own_encoder_runs(colours: Encoder) -> None:
    pictures = [picture(noise(20, 30)) for _ in range(3)]
    inputs = [colours.preprocess(Modality.IMAGE, content) for content in pictures]
    vectors = colours.encode(Modality.IMAGE, [*inputs, colours.grey()])
    assert vectors.shape == (4, colours.feature_dim)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert torch.equal(colours.encode(Modality.IMAGE, inputs[:1]), vectors[:1])
    assert colours.weight_files(Modality.IMAGE) == ()
    assert len(colours.sha256) == 64
