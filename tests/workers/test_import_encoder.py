"""An encoder's weights go into a real store and come out of it as a compile run takes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ibllm_core.contract import layout
from ibllm_core.contract.media import Modality
from ibllm_core.encoders.imagebind import weights
from ibllm_core.encoders.imagebind.config import Tower
from ibllm_core.encoders.imagebind.encoder import ImageBindEncoder
from ibllm_core.storage import ObjectStore
from tests.ibllm_core.encoders.imagebind.models import SMALL, random_clips, write_pth
from tests.ibllm_core.formats.object_store import running_store
from workers.compile.plan import EncoderPlan, fetch_weights, open_encoder
from workers.import_encoder import main

SOMEBODYS = """
class Encoder:
    name, modalities, feature_dim, licence, sha256 = "somebodys", frozenset({"image"}), 8, "MIT", "0" * 64

    def weight_files(self, modality):
        return ["model.bin"]


def make(*, weights, device, dtype):
    from ibllm_core.errors import InvalidSpecError

    if weights is None:
        raise InvalidSpecError("somebodys needs weights: `ibllm import-encoder somebodys FOLDER` brings them in")
    return Encoder()
"""
PLAN = EncoderPlan(name="imagebind", dtype="float32", actors=1, cpus=1.0, gpus=0.0)
FILES = {"encoder.json", *(f"{tower}.safetensors" for tower in Tower)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield ObjectStore(running.settings)


@pytest.fixture(autouse=True)
def node(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's environment, and a store without encoders."""
    monkeypatch.setenv("IBLLM_S3_ENDPOINT", store.settings.endpoint)
    monkeypatch.setenv("IBLLM_S3_BUCKET", store.settings.bucket)
    monkeypatch.setenv("IBLLM_S3_ACCESS_KEY", store.settings.access_key)
    monkeypatch.setenv("IBLLM_S3_SECRET_KEY", store.settings.secret_key)
    monkeypatch.setenv("IBLLM_CACHE", str(tmp_path / "cache"))
    for key in store.list("encoders/"):
        store.delete(key)


@pytest.fixture
def pth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A released file of the small sizes: the released ones are 4.8 GB."""
    monkeypatch.setattr(weights, "huge", lambda: SMALL)
    return write_pth(tmp_path / "imagebind_small.pth")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same, split before."""
    weights.split(write_pth(tmp_path / "all.pth"), tmp_path / "towers", SMALL)
    return tmp_path / "towers"


def stored(store: ObjectStore, name: str = "imagebind") -> set[str]:
    return {key.removeprefix(f"{layout.encoder(name)}/") for key in store.list(f"{layout.encoder(name)}/")}


def test_a_released_file_is_split_and_uploaded(
    store: ObjectStore, pth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("imagebind", pth) == 0
    assert capsys.readouterr().out == "encoder imagebind: 8 files, 1 MB\n"
    assert stored(store) == FILES | {"MANIFEST.json"}
    assert store.manifest(layout.encoder("imagebind"))["files"].keys() == FILES


def test_a_split_folder_is_uploaded_as_it_is(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    assert main("imagebind", folder) == 0
    fetched = store.download_folder(layout.encoder("imagebind"), tmp_path / "fetched")
    for name in FILES:
        assert (fetched / name).read_bytes() == (folder / name).read_bytes()


def test_what_is_there_stays(store: ObjectStore, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("imagebind", folder) == 0
    before = store.manifest(layout.encoder("imagebind"))
    capsys.readouterr()
    assert main("imagebind", folder.parent / "other.pth") == 0
    assert capsys.readouterr().out == "encoder imagebind is in the object store already\n"
    assert store.manifest(layout.encoder("imagebind")) == before


def test_a_node_fetches_the_tower_of_what_it_encodes_and_no_other(pth: Path, tmp_path: Path) -> None:
    assert main("imagebind", pth) == 0
    encoder = open_encoder(PLAN)
    cached = tmp_path / "cache" / layout.encoder("imagebind")
    assert {file.name for file in cached.iterdir()} == {"encoder.json"}
    fetch_weights(PLAN, encoder, Modality.IMAGE)
    clips = list(random_clips(Modality.IMAGE, 3))
    features = encoder.encode(Modality.IMAGE, clips)
    assert {file.name for file in cached.iterdir()} == {"encoder.json", "vision.safetensors"}
    assert torch.equal(features, ImageBindEncoder(pth, config=SMALL).encode(Modality.IMAGE, clips))


def refusal(capsys: pytest.CaptureFixture[str], name: str, source: Path) -> str:
    """The one sentence of an import that was refused."""
    assert main(name, source) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def test_a_damaged_tower_never_gets_in(store: ObjectStore, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray((folder / "imu.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "imu.safetensors").write_bytes(content)
    assert "split the released file again" in refusal(capsys, "imagebind", folder)
    assert stored(store) == set()


@pytest.mark.parametrize("missing", ["encoder.json", "audio.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused(
    store: ObjectStore, folder: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    (folder / missing).unlink()
    assert missing in refusal(capsys, "imagebind", folder)
    assert stored(store) == set()


def test_a_file_that_holds_no_imagebind_is_refused(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "imagebind_huge.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is no PyTorch file of tensors" in refusal(capsys, "imagebind", tmp_path / "imagebind_huge.pth")
    assert "does not exist" in refusal(capsys, "imagebind", tmp_path / "none.pth")
    assert stored(store) == set()


def test_an_encoder_that_brings_its_weights_needs_no_import(
    folder: Path, pth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (folder, pth):
        assert "jobs can name it as it is" in refusal(capsys, "efficientnet-lite0", source)


def test_an_encoder_that_is_not_installed_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no encoder 'clip' here; there are: efficientnet-lite0, imagebind" in refusal(
        capsys, "clip", folder
    )


@pytest.fixture
def somebodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder from an installed package, and the folder with its weights."""
    package = tmp_path / "site"
    (package / "somebodys-1.0.dist-info").mkdir(parents=True)
    (package / "somebodys.py").write_text(SOMEBODYS)
    (package / "somebodys-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (package / "somebodys-1.0.dist-info/entry_points.txt").write_text("[ibllm.encoders]\nsomebodys = somebodys:make\n")
    monkeypatch.syspath_prepend(package)
    folder = tmp_path / "somebodys"
    (folder / "parts").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "parts/words.txt").write_bytes(b"words")
    return folder


def test_the_folder_of_somebodys_encoder_is_uploaded_as_it_is(store: ObjectStore, somebodys: Path) -> None:
    assert main("somebodys", somebodys) == 0
    assert stored(store, "somebodys") == {"model.bin", "parts/words.txt", "MANIFEST.json"}


def test_somebodys_encoder_says_what_it_lacks(
    store: ObjectStore, somebodys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "import-encoder somebodys FOLDER" in refusal(capsys, "somebodys", somebodys / "model.bin")
    (somebodys / "model.bin").unlink()
    assert "lacks model.bin" in refusal(capsys, "somebodys", somebodys)
    assert stored(store, "somebodys") == set()
