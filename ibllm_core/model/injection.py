"""Injection: one vector per layer and sample, added to the residual stream.

Every fusion fills the same table ``u[layer][segment]``. Because it is a plain addition, attention stays stock and
a packed row needs no more than the segment number of each token. Shape suffixes: B rows, T tokens of a
row, L layers, S segments (samples) of the batch, C model dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NO_SEGMENT = -1


class TokenAdd(nn.Module):
    """The paper's fusion, equation 2: ``u_l = g_l * T_I``, added at the input of every layer.

    The gates are one tensor ``[L, 1]`` that starts at zero, so that the untouched model is the plain LLaMA
    exactly, and so that ZeRO 3 never has to split a one-element parameter.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(num_layers, 1))

    def forward(self, bound_SC: Tensor) -> Tensor:
        """Return the table ``u_LSC`` for the bound vectors of a batch."""
        return self.gates[:, :, None].to(bound_SC.dtype) * bound_SC[None]


class Injector:
    """Adds ``u[layer][segment]`` to the hidden states at the input of each decoder layer, through pre-hooks.

    Outside ``use(...)`` nothing is added and the backbone is the plain LLaMA.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        self._table_LSC: Tensor | None = None
        self._segments_BT: Tensor | None = None
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(self._make_hook(index), with_kwargs=True)

    def use(self, table_LSC: Tensor, segments_BT: Tensor) -> _Use:
        """Context manager: inside it tokens of segment ``s`` receive ``table[l][s]``; ``NO_SEGMENT`` nothing.

        ``segments_BT`` may be ``[B, 1]``, which holds for every token of the row (generation).
        """
        return _Use(self, table_LSC, segments_BT)

    def _make_hook(self, index: int):  # type: ignore[no-untyped-def]
        def add(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]):  # type: ignore[no-untyped-def]
            if self._table_LSC is None or self._segments_BT is None:
                return None
            delta_BTC = self._table_LSC[index][self._segments_BT]
            if args:
                return (args[0] + delta_BTC, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + delta_BTC}

        return add


class _Use:
    def __init__(self, injector: Injector, table_LSC: Tensor, segments_BT: Tensor) -> None:
        # The row that ``NO_SEGMENT`` (-1) picks is a row of zeros at the end of the table.
        zeros = table_LSC.new_zeros(table_LSC.shape[0], 1, table_LSC.shape[2])
        self._injector = injector
        self._table = torch.cat([table_LSC, zeros], dim=1)
        self._segments = segments_BT

    def __enter__(self) -> None:
        self._injector._table_LSC = self._table
        self._injector._segments_BT = self._segments

    def __exit__(self, *_exc: object) -> None:
        self._injector._table_LSC = None
        self._injector._segments_BT = None
