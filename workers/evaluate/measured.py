"""What one stage's adapter came to on its held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ibllm_core.contract import metrics as names


@dataclass(kw_only=True)
class Measured:
    """``figures`` are for evaluation.json, ``metrics`` for MLflow; of all ``answers`` some ``samples`` are shown."""

    figures: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, right: Mapping[str, float], shuffled: Mapping[str, float], metric_of: Mapping[str, str]) -> None:
        """Take figures with right and with shuffled media; ``metric_of`` names those of them that are metrics."""
        self.figures |= right
        self.figures |= {names.with_shuffled_media(name): value for name, value in shuffled.items()}
        for name, metric in metric_of.items():
            self.metrics[metric] = right[name]
            self.metrics[names.with_shuffled_media(metric)] = shuffled[name]
