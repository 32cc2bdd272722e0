"""The fusion that a configuration names."""

from __future__ import annotations

from ibllm_core.contract.adapter_config import AdapterPrefixConfig, ConcatConfig, FusionConfig, ValueGateConfig
from ibllm_core.errors import InvalidSpecError
from ibllm_core.model.backbone import BaseShape
from ibllm_core.model.fusion.adapter_prefix import AdapterPrefix
from ibllm_core.model.fusion.base import Fusion
from ibllm_core.model.fusion.concat import Concat
from ibllm_core.model.fusion.token_add import TokenAdd
from ibllm_core.model.fusion.value_gate import ValueGate


def build_fusion(config: FusionConfig, shape: BaseShape) -> Fusion:
    """A fresh fusion for a base; ``InvalidSpecError`` where the configuration names layers that the base lacks."""
    match config:
        case ValueGateConfig():
            return ValueGate(shape.num_layers, shape.num_heads, shape.model_dim)
        case AdapterPrefixConfig():
            layers = tuple(range(shape.num_layers)) if config.layers is None else config.layers
            return AdapterPrefix(_checked(layers, shape.num_layers), shape.num_heads, config.prompts, shape.model_dim)
        case ConcatConfig():
            return Concat(config.tokens, shape.model_dim)
        case _:
            return TokenAdd(shape.num_layers)


def _checked(layers: tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    wrong = [layer for layer in layers if not 0 <= layer < num_layers]
    if wrong or len(set(layers)) != len(layers):
        raise InvalidSpecError(
            f"adapter.fusion.layers is {list(layers)}, but must be distinct numbers from 0 to {num_layers - 1}: "
            f"the base has {num_layers} layers"
        )
    return layers
