"""Which group of parameters trains in which stage: the one place that knows.

Source: ImageBind-LLM sections 3.1 and 3.2, and the table of docs/model.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

Stage = Literal["stage1", "stage2"]
Group = Literal["llama", "bind_network", "gates", "lora", "bias", "norm"]

TRAINED_GROUPS: dict[Stage, frozenset[Group]] = {
    "stage1": frozenset({"bind_network", "gates"}),
    "stage2": frozenset({"gates", "lora", "bias", "norm"}),
}


def group_of(name: str) -> Group:
    """The group of a parameter of ``ImageBindLLM``, from its qualified name."""
    if name.startswith("bind_network."):
        return "bind_network"
    if name.startswith("fusion."):
        return "gates"
    if ".lora_down." in name or ".lora_up." in name:
        return "lora"
    if name.startswith("llama.") and name.endswith(".bias"):
        return "bias"
    if name.startswith("llama.") and "norm" in name.rsplit(".", 2)[-2]:
        return "norm"
    return "llama"


def freeze_for(stage: Stage, model: nn.Module) -> None:
    """Make exactly the groups of ``stage`` require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(group_of(name) in TRAINED_GROUPS[stage])


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of everything that requires gradients."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def hash_frozen_groups(model: nn.Module) -> dict[str, str]:
    """SHA-256 of every frozen group, over names, shapes, dtypes and bytes in the order of the names.

    Equal before and after training proves that nothing frozen moved.
    """
    digests: dict[str, hashlib._Hash] = {}
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            continue
        digest = digests.setdefault(group_of(name), hashlib.sha256())
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        raw = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return {group: digest.hexdigest() for group, digest in digests.items()}
