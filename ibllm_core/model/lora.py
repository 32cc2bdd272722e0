"""What stage 2 adds to a frozen linear: a low-rank update and a bias.

Source: ImageBind-LLM section 3.2.2; the released code has no alpha and no dropout, so the scale is 1. Biases sit
on q, o, gate, up and down, not on k and v, as in the released weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_core.contract.adapter_config import LINEARS, LoraConfig

BIASED_LINEARS = frozenset({"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


class AdaptedLinear(nn.Module):
    """``y = W x + s B A x + b`` around a frozen ``W``; ``B`` and ``b`` start at zero, so that it starts as ``W x``.

    ``config`` None leaves the low-rank update out.
    """

    def __init__(self, base: nn.Linear, config: LoraConfig | None, *, with_bias: bool) -> None:
        super().__init__()
        self.base = base
        self.scale = config.scale if config else 0.0
        self.dropout = config.dropout if config else 0.0
        self.lora_down: nn.Linear | None = None
        self.lora_up: nn.Linear | None = None
        if config:
            # In float32 and then rounded: a base of float64 or bfloat16 draws the same numbers.
            self.lora_down = nn.Linear(base.in_features, config.rank, bias=False).to(base.weight.dtype)
            self.lora_up = nn.Linear(config.rank, base.out_features, bias=False).to(base.weight.dtype)
            nn.init.zeros_(self.lora_up.weight)
        self.bias = nn.Parameter(base.weight.new_zeros(base.out_features)) if with_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        y = self.update(x, self.base(x))
        return y if self.bias is None else y + self.bias

    def update(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` plus the low-rank update of ``x``."""
        if self.lora_down is None or self.lora_up is None:
            return y
        low: Tensor = self.lora_down(F.dropout(x, self.dropout, self.training))
        # One kernel for product, scale and sum; the result of the frozen linear is read once.
        flat = torch.addmm(y.flatten(0, -2), low.flatten(0, -2), self.lora_up.weight.T, alpha=self.scale)
        return flat.view_as(y)


def adapt_linears(layers: nn.ModuleList, config: LoraConfig) -> None:
    """Wrap the seven linears of every decoder layer in place, in the dtype of the base.

    A linear that is no target is wrapped too: its bias, where it gets one, is told from the base's own by the wrapping.
    """
    for layer in layers:
        for block in (layer.self_attn, layer.mlp):
            for name in LINEARS:
                base = getattr(block, name, None)
                if isinstance(base, nn.Linear):
                    chosen = config if name in config.targets else None
                    setattr(block, name, AdaptedLinear(base, chosen, with_bias=name in BIASED_LINEARS))


def base_weight(linear: nn.Module) -> Tensor:
    """The frozen weight ``[out, in]`` of a linear, adapted or not."""
    weight: Tensor = (linear.base if isinstance(linear, AdaptedLinear) else linear).weight  # type: ignore[assignment]
    return weight


def linear_part(linear: nn.Module, x_SC: Tensor) -> Tensor:
    """A linear without its biases: the frozen product and the low-rank update."""
    y = F.linear(x_SC, base_weight(linear))
    return linear.update(x_SC, y) if isinstance(linear, AdaptedLinear) else y
