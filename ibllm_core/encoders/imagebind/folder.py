"""Our folder of weights: ``encoder.json`` and a safetensors file a tower, so that each is read alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from ibllm_core.bases.safetensors_folder import opened
from ibllm_core.contract.base import Contract
from ibllm_core.encoders.imagebind.checks import TowerHash, read_checked
from ibllm_core.encoders.imagebind.config import ImageBindConfig, Tower
from ibllm_core.encoders.imagebind.released_file import ReleasedFile
from ibllm_core.errors import InvalidWeightsError
from ibllm_core.storage import sha256_of

HEADER = "encoder.json"


class EncoderHeader(Contract):
    """What ``encoder.json`` says. ``source_sha256`` is of the bytes that were split, ``towers`` of each content."""

    format: Literal[1] = 1
    licence: Literal["CC-BY-NC-SA-4.0"] = "CC-BY-NC-SA-4.0"
    source_sha256: str
    config: ImageBindConfig
    towers: dict[Tower, str]


class EncoderFolder:
    """``Weights`` of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = _read_header(path / HEADER)
        self.config = self.header.config

    def tensors(self, tower: Tower) -> Iterator[tuple[str, Tensor]]:
        """The tensors of one tower; in the end ``InvalidWeightsError`` where they are not those that were split."""
        file, content = tower_file(self.path, tower), TowerHash()
        with opened(file) as stored:
            shapes = {key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118
            for key, tensor in read_checked(file, self.config, tower, shapes, stored.get_tensor):
                content.add(key, tensor)
                yield key, tensor
                del tensor  # else it would live until the next one has been read
        if content.hexdigest() != self.header.towers[tower]:
            raise InvalidWeightsError(
                f"{file} has content {content.hexdigest()}, but {HEADER} says {self.header.towers[tower]}: split the "
                "released file again",
                file=str(file),
                expected=self.header.towers[tower],
            )

    def tower_hashes(self) -> dict[Tower, str]:
        """SHA-256 of every tower's content, as the header says; ``tensors`` holds them against the files."""
        return self.header.towers


def write_folder(folder: Path, source: ReleasedFile) -> None:
    """Write every tower of a released file into an empty or new folder, the header last."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidWeightsError(
            f"{folder} exists and is not empty: give an empty or new folder", file=str(folder), expected="no files"
        )
    folder.mkdir(parents=True, exist_ok=True)
    towers = {tower: _write_tower(tower_file(folder, tower), source, tower) for tower in source.config.towers}
    header = EncoderHeader(source_sha256=sha256_of(source.path), config=source.config, towers=towers)
    partial = folder / f"{HEADER}.part"
    partial.write_text(header.model_dump_json(indent=2, exclude_none=True) + "\n")
    partial.replace(folder / HEADER)


def tower_file(folder: Path, tower: Tower) -> Path:
    """Where a folder holds a tower."""
    return folder / f"{tower}.safetensors"


def _write_tower(file: Path, source: ReleasedFile, tower: Tower) -> str:
    """Write one tower; returns the hash of its content."""
    content = TowerHash()
    tensors = {}
    for key, tensor in source.tensors(tower):
        content.add(key, tensor)
        tensors[key] = tensor.contiguous()
    save_file(tensors, file)
    return content.hexdigest()


def _read_header(file: Path) -> EncoderHeader:
    try:
        header = EncoderHeader.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise InvalidWeightsError(
            f"{file} is missing: give a folder that was split from a released ImageBind, or the .pth itself",
            file=str(file),
            expected=HEADER,
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise InvalidWeightsError(
            f"{file}: {where}: {problem['msg']}: split the released file again", file=str(file), key=where
        ) from error
    if header.towers.keys() != header.config.towers.keys():
        raise InvalidWeightsError(
            f"{file} names the towers {sorted(header.towers)}, but describes {sorted(header.config.towers)}: split the "
            "released file again",
            file=str(file),
            key="towers",
        )
    return header
