"""The numbers of a base model that its memory depends on, from its ``config.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ibllm_core.errors import InvalidWeightsError


@dataclass(frozen=True, kw_only=True)
class BaseSize:
    """A LLaMA's dimensions; ``context`` is the positions that it was trained for."""

    model_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    context: int
    has_tied_head: bool = False
    has_attention_bias: bool = False
    has_mlp_bias: bool = False

    @property
    def query_dim(self) -> int:
        """What all query heads take together; differs from ``model_dim`` where ``head_dim`` is set apart."""
        return self.num_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """What all key-value heads take together."""
        return self.num_kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of a layer's linears, by name."""
        return {
            "q_proj": (self.model_dim, self.query_dim),
            "k_proj": (self.model_dim, self.kv_dim),
            "v_proj": (self.model_dim, self.kv_dim),
            "o_proj": (self.query_dim, self.model_dim),
            "gate_proj": (self.model_dim, self.hidden_dim),
            "up_proj": (self.model_dim, self.hidden_dim),
            "down_proj": (self.hidden_dim, self.model_dim),
        }


def read_size(config: Mapping[str, Any], source: str) -> BaseSize:
    """The size that a ``config.json`` states, with transformers' defaults; ``InvalidWeightsError`` names ``source``."""
    try:
        heads, model_dim = int(config["num_attention_heads"]), int(config["hidden_size"])
        return BaseSize(
            model_dim=model_dim,
            hidden_dim=int(config["intermediate_size"]),
            num_layers=int(config["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or model_dim // heads),
            vocab_size=int(config["vocab_size"]),
            context=int(config["max_position_embeddings"]),
            has_tied_head=bool(config.get("tie_word_embeddings", False)),
            has_attention_bias=bool(config.get("attention_bias", False)),
            has_mlp_bias=bool(config.get("mlp_bias", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidWeightsError(
            f"{source} does not state the size of a LLaMA ({error!r}): bring the base in again with "
            "`ibllm import-base`",
            file=source,
        ) from error
