"""What stage 2 adds to a frozen linear: a low-rank update and a bias.

Source: ImageBind-LLM section 3.2.2; the released code has no alpha and no dropout, so the scale is 1. Biases sit
on q, o, gate, up and down, not on k and v, as in the released weights.
"""

from __future__ import annotations

from torch import Tensor, nn

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BIASED_LINEARS = frozenset({"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


class AdaptedLinear(nn.Module):
    """``y = W x + B A x + b`` around a frozen ``W``; ``B`` and ``b`` start at zero, so that it starts as ``W x``."""

    def __init__(self, base: nn.Linear, rank: int, with_bias: bool) -> None:
        super().__init__()
        self.base = base
        self.lora_down = nn.Linear(base.in_features, rank, bias=False)
        self.lora_up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_up.weight)
        self.bias = nn.Parameter(self.lora_up.weight.new_zeros(base.out_features)) if with_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        y: Tensor = self.base(x) + self.lora_up(self.lora_down(x))
        return y if self.bias is None else y + self.bias


def adapt_linears(layers: nn.ModuleList, rank: int) -> None:
    """Wrap the seven linears of every decoder layer in place, in the dtype of the base."""
    for layer in layers:
        for block in (layer.self_attn, layer.mlp):
            for name in LINEARS:
                base = getattr(block, name, None)
                if isinstance(base, nn.Linear):
                    adapted = AdaptedLinear(base, rank, name in BIASED_LINEARS)
                    setattr(block, name, adapted.to(base.weight.dtype))
