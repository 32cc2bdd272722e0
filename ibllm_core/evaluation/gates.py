"""How open the gates of an adapter are, by layer and head."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ibllm_core.contract import metrics as names


def gate_metrics(magnitudes_LG: Tensor) -> dict[str, float]:
    """``|g|`` of layers and heads as metrics: over all, and the mean of each layer."""
    magnitudes_LG = magnitudes_LG.cpu()
    return {
        names.GATE_ABS_MEAN: float(magnitudes_LG.mean()),
        names.GATE_ABS_MAX: float(magnitudes_LG.max()),
        names.GATE_OPEN_SHARE: float((magnitudes_LG > names.GATE_OPEN_THRESHOLD).float().mean()),
        **{names.gate_layer(layer): float(value) for layer, value in enumerate(magnitudes_LG.mean(dim=1))},
    }


def gate_table(magnitudes_LG: Tensor) -> list[dict[str, Any]]:
    """A row a layer, for people: mean and largest ``|g|``, which head has that, and the share of open gates."""
    return [
        {
            "layer": layer,
            "abs_mean": float(heads_G.mean()),
            "abs_max": float(heads_G.max()),
            "strongest_head": int(heads_G.argmax()),
            "open_share": float((heads_G > names.GATE_OPEN_THRESHOLD).float().mean()),
        }
        for layer, heads_G in enumerate(magnitudes_LG.cpu())
    ]
