"""ImageBind's weights on disk: a released ``.pth``, or a folder of ours with a file a tower. Read a tower at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ibllm_core.encoders.imagebind.config import ImageBindConfig, Tower, huge
from ibllm_core.encoders.imagebind.folder import EncoderFolder, write_folder
from ibllm_core.encoders.imagebind.model import ImageBind
from ibllm_core.encoders.imagebind.released_file import ReleasedFile
from ibllm_core.errors import InvalidSpecError, InvalidWeightsError


class Weights(Protocol):
    """Opened weights; opening reads names only. ``config`` has the towers that are there."""

    path: Path
    config: ImageBindConfig

    def tensors(self, tower: Tower) -> Iterator[tuple[str, Tensor]]:
        """The tensors of one tower by released key, as they are stored: exactly its own, of the right shapes, finite.

        ``InvalidWeightsError`` names file, key and expected shape; what was yielded before must then be dropped.
        """

    def tower_hashes(self) -> dict[Tower, str]:
        """SHA-256 of the content of every tower that is there, the same for both formats."""


def open_weights(path: Path, config: ImageBindConfig | None = None) -> Weights:
    """Open a released ``.pth`` or a folder that ``split`` wrote.

    ``config`` says what a ``.pth`` holds, ``huge()`` where it is None; a folder knows its own. Raises
    ``InvalidWeightsError`` where the path is neither, ``InvalidSpecError`` where a folder has another config.
    """
    if path.is_dir():
        folder = EncoderFolder(path)
        if config not in (None, folder.config):
            raise InvalidSpecError(f"{path} holds an ImageBind of other sizes than the given config: give none")
        return folder
    return ReleasedFile(path, config or huge())


def load_tower(weights: Weights, tower: Tower, *, device: torch.device | str, dtype: torch.dtype) -> ImageBind:
    """An ``ImageBind`` of one tower, which must be there; needs memory for it and one tensor more."""
    with torch.device("meta"):
        model = ImageBind(weights.config.only(tower))
    state = {key: _placed(tensor, device, dtype) for key, tensor in weights.tensors(tower)}
    model.load_state_dict(state, assign=True)
    return model


def split(pth: Path, folder: Path, config: ImageBindConfig | None = None) -> None:
    """Write the towers of a released ``.pth`` as a folder, a tower at a time, each tensor in its stored dtype.

    The folder must not exist or be empty; it counts as one when ``encoder.json`` is there, which is written last.
    ``config`` as for ``open_weights``. Raises ``InvalidWeightsError``.
    """
    if pth.is_dir():
        raise InvalidWeightsError(
            f"{pth} is a folder: give the path of a released .pth", file=str(pth), expected="a released .pth"
        )
    write_folder(folder, ReleasedFile(pth, config or huge()))


def _placed(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """A copy, since a tensor of a mapped file would change with the file; counters stay integers."""
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
