"""Encoders by name; a stranger's package brings its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.registry import encoder_names, load_encoder
from ibllm_core.errors import InvalidSpecError

STRANGER = """
import torch
from ibllm_core.contract.media import Modality

class Brightness:
    name, licence, feature_dim, sha256 = "brightness", "MIT", 2, "b"
    modalities = frozenset({Modality.IMAGE})
    def __init__(self, weights): self.weights = weights
    def weight_files(self, modality): return ()
    def preprocess(self, modality, content, *, crop_seed=None): return torch.tensor([float(len(content)), 1.0])
    def grey(self): return torch.zeros(2)
    def encode(self, modality, inputs): return torch.nn.functional.normalize(torch.stack(list(inputs)), dim=-1)

def make(*, weights, device, dtype):
    return Brightness(weights)
"""


def install(folder: Path, package: str, name: str, value: str) -> None:
    """What pip leaves of a package that registers an encoder."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ibllm.encoders]\n{name} = {value}\n")


def test_a_strangers_encoder_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "brightness_encoder.py").write_text(STRANGER)
    install(tmp_path, "brightness-encoder", "brightness", "brightness_encoder:make")
    assert encoder_names() == ["brightness", "efficientnet-lite0", "imagebind"]
    encoder = load_encoder("brightness", weights=tmp_path)
    vector = encoder.encode(Modality.IMAGE, [encoder.preprocess(Modality.IMAGE, b"abc")])
    assert torch.allclose(vector, torch.tensor([[3.0, 1.0]]) / 10**0.5)
    sys.modules.pop("brightness_encoder")


def test_two_packages_may_not_claim_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "impostor", "imagebind", "somewhere_else:make")
    with pytest.raises(InvalidSpecError, match=r"more than one package \(ibllm, impostor\): uninstall all but one"):
        load_encoder("imagebind")


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(InvalidSpecError, match="there are: efficientnet-lite0, imagebind"):
        load_encoder("clip")


def test_imagebind_without_weights_says_how_to_bring_them() -> None:
    with pytest.raises(InvalidSpecError, match=r"ibllm import-encoder imagebind imagebind_huge\.pth"):
        load_encoder("imagebind")


def test_the_demos_encoder_reads_pictures_alone_and_says_so() -> None:
    with pytest.raises(InvalidSpecError, match="reads images alone, but the data has media of kind audio"):
        load_encoder("efficientnet-lite0").preprocess(Modality.AUDIO, b"")
