"""Which group of parameters trains in which stage: the one place that knows.

Source: ImageBind-LLM sections 3.1 and 3.2 and its released code; the table of docs/model.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import nn

from ibllm_core.contract.adapter_config import Preset
from ibllm_core.contract.job_spec import TrainingStage

Group = Literal["llama", "bind_network", "queries", "gates", "lora", "bias", "norm"]

TRAINED_GROUPS: dict[Preset, dict[TrainingStage, frozenset[Group]]] = {
    "paper": {
        "stage1": frozenset({"bind_network", "queries", "gates"}),
        "stage2": frozenset({"gates", "lora", "bias", "norm"}),
    },
    "released": {
        "stage1": frozenset({"bind_network", "queries", "gates"}),
        "stage2": frozenset({"lora", "bias", "norm"}),
    },
}
ADAPTED_GROUPS: dict[TrainingStage, frozenset[Group]] = {
    "stage1": frozenset({"bind_network", "queries", "gates"}),
    "stage2": frozenset({"bind_network", "queries", "gates", "lora", "bias", "norm"}),
}


def group_of(name: str) -> Group:
    """The group of a parameter of ``ImageBindLLM``, from its qualified name.

    ``queries`` are whatever a fusion learns beside its gates: the queries of ``value_gate``, the prompts of
    ``adapter_prefix``, the scales and offsets of ``concat``.
    """
    if name.startswith("bind_network."):
        return "bind_network"
    if name.startswith("fusion."):
        return "gates" if name == "fusion.gates" else "queries"
    if ".lora_down." in name or ".lora_up." in name:
        return "lora"
    if name.endswith(".bias") and not name.endswith(".base.bias"):
        return "bias"
    if "norm" in name.rsplit(".", 2)[-2]:
        return "norm"
    return "llama"


def freeze_for(stage: TrainingStage, model: nn.Module, preset: Preset = "paper") -> None:
    """Make exactly the groups of ``stage`` require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(group_of(name) in TRAINED_GROUPS[preset][stage])


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of everything that requires gradients."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def adapted_parameters(model: nn.Module, stage: TrainingStage) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of everything that an adapter of ``stage`` holds."""
    return ((name, p) for name, p in model.named_parameters() if group_of(name) in ADAPTED_GROUPS[stage])
