"""A checkpoint's files: whole tensors by name in safetensors, one file a writer and kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ibllm_core.errors import InvalidWeightsError
from workers.train.checkpoint.parts import KINDS, tensors_of
from workers.train.checkpoint.state import OPTIMIZER, WEIGHTS
from workers.train.engine.base import Engine, Fragment
from workers.train.engine.optimizer import MOMENTS


def filename(stem: str, writer: int, writers: int) -> str:
    """``trainable.safetensors``, or with several writers ``trainable-00001-of-00004.safetensors``."""
    return f"{stem}.safetensors" if writers == 1 else f"{stem}-{writer + 1:05d}-of-{writers:05d}.safetensors"


def write(folder: Path, tensors: Mapping[tuple[str, str], Tensor], *, writer: int, writers: int) -> list[Path]:
    """Write one writer's tensors, by name and kind; moments are named ``<parameter>/exp_avg`` and so on."""
    weights = {name: tensor for (name, kind), tensor in tensors.items() if kind == "weight"}
    moments = {f"{name}/{kind}": tensor for (name, kind), tensor in tensors.items() if kind != "weight"}
    paths = []
    for stem, content in ((WEIGHTS, weights), (OPTIMIZER, moments)):
        paths.append(folder / filename(stem, writer, writers))
        save_file(content, paths[-1])
    return paths


@torch.no_grad()
def load(paths: Iterable[Path], engine: Engine) -> None:
    """Put a checkpoint's tensors into this rank's share of the state; each is mapped, and read where it is needed.

    ``InvalidWeightsError`` names the tensor that is missing or of another shape, before anything is written.
    """
    paths = sorted(path for path in paths if path.suffix == ".safetensors")
    files: list[Any] = [safe_open(path, framework="pt") for path in paths]
    where = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (safetensors is no dict)
    fragments = list(engine.fragments())
    for fragment in fragments:
        for key in _keys(fragment).values():
            shape = tuple(where[key].get_slice(key).get_shape()) if key in where else None
            if shape != fragment.shape:
                raise InvalidWeightsError(
                    f"the checkpoint's {key} is {shape or 'missing'}, but must be {fragment.shape}: it was written for "
                    "another base or configuration",
                    file=str(paths[0].parent) if paths else "",
                    key=key,
                    expected=fragment.shape,
                )
    for fragment in fragments:
        targets = tensors_of(fragment)
        for kind, key in _keys(fragment).items():
            whole = where[key].get_tensor(key).view(-1)
            targets[kind].copy_(whole[fragment.start : fragment.start + targets[kind].numel()])
    engine.refresh()


def _keys(fragment: Fragment) -> dict[str, str]:
    return {kind: f"{fragment.name}/{kind}" if kind in MOMENTS else fragment.name for kind in KINDS}
