"""The released code's fusion: a gated value of the bound vector on the output of every attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ibllm_core.model.fusion.base import Fusion, Media, of_tokens, split_heads, with_no_media
from ibllm_core.model.lora import base_weight, linear_part


class ValueGate(Fusion):
    """``u_l = W_o(tanh(g_l) * W_v(T_I + q_l))``, added to what the attention of layer ``l`` puts out.

    This equals LLaMA-Adapter's zero-initialised attention over one prompt, whose softmax is 1: the vector is the same
    at every position. ``W_v`` is the base's alone; ``W_o`` has its low-rank update, and its biases count once, in the
    attention. ``gates`` are ``[L, H]``, ``queries`` ``[L, C]`` (``prefix_query`` of released checkpoints, drawn from
    N(0, 1)).
    """

    gates: nn.Parameter

    def __init__(self, num_layers: int, num_heads: int, model_dim: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(num_layers, num_heads))
        self.queries = nn.Parameter(torch.randn(num_layers, model_dim))

    def attach(self, layers: Sequence[nn.Module]) -> None:
        """Hook the output of each layer's attention."""
        super().attach(layers)
        for index, layer in enumerate(layers):
            layer.self_attn.register_forward_hook(  # type: ignore[union-attr]
                partial(self._add, index), with_kwargs=True
            )

    def condition(self, bound_SC: Tensor) -> Tensor:
        """The table ``u_LSC``."""
        return with_no_media(torch.stack([self._row(i, bound_SC) for i in range(len(self._layers))]))

    def _row(self, index: int, bound_SC: Tensor) -> Tensor:
        attention: Any = self._layers[index].self_attn
        values_SX = nn.functional.linear(bound_SC + self.queries[index], base_weight(attention.v_proj))
        values_SHD = split_heads(values_SX, attention.head_dim).repeat_interleave(attention.num_key_value_groups, dim=1)
        gated_SHD = self.gates[index].tanh()[:, None] * values_SHD
        return linear_part(attention.o_proj, gated_SHD.flatten(1))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # the number of a layer in its graph would make a graph a layer
    def _add(
        self, index: int, _attention: nn.Module, _args: Any, kwargs: dict[str, Any], output: tuple[Any, ...]
    ) -> Any:
        media: Media | None = kwargs.get("media")
        if media is None:
            return None
        hidden_BTC, *others = output
        return (hidden_BTC + of_tokens(media.lines[index], media.segments_BT), *others)
