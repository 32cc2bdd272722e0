"""Adapters on disk: everything that training changed, as safetensors with a typed header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ibllm_core.errors import BaseMismatchError, InvalidDataError
from ibllm_core.model.stages import group_of

FILENAME = "adapter.safetensors"
HEADER_KEY = "ibllm"


class AdapterHeader(BaseModel):
    """What an adapter is, and what it was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    stage: Literal["stage1", "stage2"]
    fusion: Literal["token_add"] = "token_add"
    norm: Literal["rms", "layer"] = "rms"
    feature_dim: int
    lora_rank: int
    base: str
    base_sha256: str
    encoder: str
    dataset: str
    parent: str | None
    job_id: str


def save(folder: Path, header: AdapterHeader, tensors: dict[str, torch.Tensor]) -> Path:
    """Write an adapter; ``tensors`` holds every adapted parameter by its name in ``ImageBindLLM``, in fp32."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILENAME
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={HEADER_KEY: header.model_dump_json()})
    return path


def read_header(folder: Path) -> AdapterHeader:
    """The header alone, without reading weights."""
    with safe_open(folder / FILENAME, framework="pt") as file:
        return AdapterHeader.model_validate(json.loads(file.metadata()[HEADER_KEY]))


def load_into(model: nn.Module, folder: Path, *, base_sha256: str) -> AdapterHeader:
    """Put an adapter's weights into a model that was built for its header.

    Every tensor of the file must have its place; ``BaseMismatchError`` names both hashes when the base is another one.
    """
    header = read_header(folder)
    if header.base_sha256 != base_sha256:
        raise BaseMismatchError(
            f"the adapter was trained on base {header.base} ({header.base_sha256[:12]}), but this base is "
            f"{base_sha256[:12]}: load it with its own base",
        )
    parameters = dict(model.named_parameters())
    with safe_open(folder / FILENAME, framework="pt") as file:
        unknown = sorted(set(file.keys()) - set(parameters))
        if unknown:
            raise InvalidDataError(f"the adapter holds {unknown[0]} and {len(unknown) - 1} more that the model lacks")
        with torch.no_grad():
            for name in file.keys():  # noqa: SIM118 (safetensors is no dict)
                parameters[name].copy_(file.get_tensor(name))
    return header


def adapted_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter of a model that is not the frozen LLaMA, in fp32."""
    stage2 = any(group_of(name) == "lora" for name, _ in model.named_parameters())
    kept = {"bind_network", "gates"} | ({"lora", "bias", "norm"} if stage2 else set())
    return {name: p.detach().float() for name, p in model.named_parameters() if group_of(name) in kept}
