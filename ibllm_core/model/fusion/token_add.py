"""The paper's fusion: the gated bound vector joins every word token at the input of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ibllm_core.model.fusion.base import Fusion, Media, of_tokens, with_no_media


class TokenAdd(Fusion):
    """``T^j = T_I * g_l + T_W^j`` (ImageBind-LLM, equation 2), added again at each layer's input.

    The gates are one tensor ``[L, 1]``: ZeRO 3 cannot split a parameter of one element.
    """

    gates: nn.Parameter

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(num_layers, 1))

    def attach(self, layers: Sequence[nn.Module]) -> None:
        """Hook the input of each layer."""
        super().attach(layers)
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._add, index), with_kwargs=True)

    def condition(self, bound_SC: Tensor) -> Tensor:
        """The table ``u_LSC`` with ``u_l = g_l * T_I``."""
        return with_no_media(self.gates[:, :, None] * bound_SC)

    def _add(self, index: int, _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        media: Media | None = kwargs.get("media")
        if media is None:
            return None
        hidden_BTC, *others = args
        return (hidden_BTC + of_tokens(media.lines[index], media.segments_BT), *others), kwargs
