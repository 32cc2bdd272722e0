"""How many parameters a base has, and how many of them and around them a stage trains.

The counts of ``ibllm_core.model`` without torch; the tests hold them against real models.
"""

from __future__ import annotations

from ibllm_core.contract.adapter_config import (
    AdapterConfig,
    AdapterPrefixConfig,
    BindNorm,
    ConcatConfig,
    FusionConfig,
    LoraConfig,
    ValueGateConfig,
)
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.planning.base_size import BaseSize

BIND_BLOCKS = 3
BIND_MULTIPLE = 4  # hidden dimension of a block, in model dimensions
BIASED = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def trained_parameters(base: BaseSize, adapter: AdapterConfig, stage: TrainingStage, feature_dim: int) -> int:
    """Parameters that require gradients: stage 1's 608,190,464 and its gates for the paper's model."""
    gates, others = fusion_parameters(base, adapter.fusion)
    if stage == "stage1":
        return bind_parameters(base.model_dim, feature_dim, adapter.bind_norm) + gates + others
    trained = lora_parameters(base, adapter.lora) + _biases(base) + _norms(base)
    return trained + (gates if adapter.preset == "paper" else 0)


def frozen_parameters(base: BaseSize, adapter: AdapterConfig, stage: TrainingStage, feature_dim: int) -> int:
    """Parameters that lie beside the trained ones: the base's, and in stage 2 what stage 1 trained."""
    if stage == "stage1":
        return base_parameters(base)
    gates, others = fusion_parameters(base, adapter.fusion)
    bound = bind_parameters(base.model_dim, feature_dim, adapter.bind_norm)
    return base_parameters(base) - _norms(base) + bound + others + (0 if adapter.preset == "paper" else gates)


def base_parameters(base: BaseSize) -> int:
    """All parameters of a base; a tied head counts once."""
    embeddings = base.vocab_size * base.model_dim * (1 if base.has_tied_head else 2)
    return embeddings + base.num_layers * layer_parameters(base) + base.model_dim


def layer_parameters(base: BaseSize) -> int:
    """Parameters of one decoder layer."""
    matrices = sum(inputs * outputs for inputs, outputs in base.linears.values())
    attention_bias = (base.query_dim + 2 * base.kv_dim + base.model_dim) * base.has_attention_bias
    mlp_bias = (2 * base.hidden_dim + base.model_dim) * base.has_mlp_bias
    return matrices + attention_bias + mlp_bias + 2 * base.model_dim


def bind_parameters(model_dim: int, feature_dim: int, norm: BindNorm) -> int:
    """Parameters of the bind network."""
    hidden = BIND_MULTIPLE * model_dim
    block = 3 * model_dim * hidden + model_dim * (1 if norm == "rms" else 2)
    biases = (2 * hidden + model_dim) * (norm == "legacy")
    return feature_dim * model_dim + model_dim + BIND_BLOCKS * (block + biases)


def fusion_parameters(base: BaseSize, fusion: FusionConfig) -> tuple[int, int]:
    """Gates of a fusion, and what else it learns."""
    match fusion:
        case ValueGateConfig():
            return base.num_layers * base.num_heads, base.num_layers * base.model_dim
        case AdapterPrefixConfig():
            layers = prefix_layers(base, fusion)
            return layers * base.num_heads, layers * fusion.prompts * base.model_dim
        case ConcatConfig():
            return 0, 2 * fusion.tokens * base.model_dim
        case _:
            return base.num_layers, 0


def prefix_layers(base: BaseSize, fusion: AdapterPrefixConfig) -> int:
    """Layers that get prompts."""
    return base.num_layers if fusion.layers is None else len(fusion.layers)


def lora_parameters(base: BaseSize, lora: LoraConfig) -> int:
    """Parameters of the low-rank updates of all layers."""
    return base.num_layers * sum(lora.rank * sum(base.linears[name]) for name in lora.targets)


def largest_trained(base: BaseSize, adapter: AdapterConfig, stage: TrainingStage) -> int:
    """Elements of the largest tensor that trains, whose gradient is whole for a moment at every ZeRO stage."""
    if stage == "stage1":
        return BIND_MULTIPLE * base.model_dim**2
    return max(adapter.lora.rank * max(base.linears[name]) for name in adapter.lora.targets)


def _biases(base: BaseSize) -> int:
    """Of the wrapped linears, targets of the low-rank update or not."""
    return base.num_layers * sum(base.linears[name][1] for name in BIASED)


def _norms(base: BaseSize) -> int:
    return (2 * base.num_layers + 1) * base.model_dim
