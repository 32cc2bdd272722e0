"""What is trained around the frozen LLaMA, as it stands in jobs, runs and adapters alike."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator

from ibllm_core.contract.base import Contract

BindNorm = Literal["rms", "layer", "legacy"]
Preset = Literal["paper", "released"]
FusionKind = Literal["token_add", "value_gate", "adapter_prefix", "concat"]
LinearName = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

MAX_LAYERS = 1024
Layer = Annotated[int, Field(ge=0, lt=MAX_LAYERS)]
LINEARS: tuple[LinearName, ...] = get_args(LinearName)


class TokenAddConfig(Contract):
    """The paper's fusion (equation 2): a gate per layer times the bound vector, added at the layer's input."""

    kind: Literal["token_add"] = "token_add"


class ValueGateConfig(Contract):
    """The released code's fusion: the gated value of bound vector plus layer query, on the attention's output."""

    kind: Literal["value_gate"] = "value_gate"


class AdapterPrefixConfig(Contract):
    """The LLaMA-Adapter baseline: ``prompts`` keys and values a layer under a softmax and a gate of their own."""

    kind: Literal["adapter_prefix"] = "adapter_prefix"
    prompts: int = Field(10, ge=1, le=1024, description="prompts of a layer")
    layers: tuple[Layer, ...] | None = Field(
        None, min_length=1, max_length=MAX_LAYERS, description="layers that get prompts, from 0; null: all"
    )


class ConcatConfig(Contract):
    """The LLaVA, MiniGPT-4, PandaGPT baseline: ``tokens`` projected tokens before the text, and no gate."""

    kind: Literal["concat"] = "concat"
    tokens: int = Field(1, ge=1, le=4096, description="media tokens before the text")


def _by_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


FusionConfig = Annotated[
    Annotated[TokenAddConfig | ValueGateConfig | AdapterPrefixConfig | ConcatConfig, Field(discriminator="kind")],
    BeforeValidator(_by_name),
]


class LoraConfig(Contract):
    """Stage 2's low-rank updates. The paper and the released code scale by nothing: ``alpha`` null."""

    rank: int = Field(16, ge=1, le=512)
    alpha: float | None = Field(None, gt=0, le=1e6, description="scale is alpha / rank; null: 1")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the update's inputs dropped in training")
    targets: tuple[LinearName, ...] = Field(LINEARS, min_length=1, max_length=len(LINEARS))

    @field_validator("targets")
    @classmethod
    def _in_one_order(cls, targets: tuple[LinearName, ...]) -> tuple[LinearName, ...]:
        return tuple(name for name in LINEARS if name in targets)

    @property
    def scale(self) -> float:
        """Factor of the low-rank update."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class AdapterConfig(Contract):
    """Everything that fixes an adapter's shape and what trains; the defaults are the paper's."""

    fusion: FusionConfig = Field(default_factory=TokenAddConfig, description="how media meets the layers")
    bind_norm: BindNorm = Field("rms", description="legacy: LayerNorm, and biases everywhere, as the released beta had")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="stage 2 only")
    preset: Preset = Field("paper", description="released: stage 2 freezes the gates, and text-only samples see grey")

    @property
    def media_tokens(self) -> int:
        """Positions that a sample's media takes before its text."""
        return self.fusion.tokens if isinstance(self.fusion, ConcatConfig) else 0
