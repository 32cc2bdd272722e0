"""How long to wait before what failed is tried again. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

SPREAD = 0.25  # what failed together is not to be tried together


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Seconds after the first failure, twice as many after each further one, and never more than ``longest``."""

    first: float
    longest: float

    def seconds(self, failures: int, chance: float | None = None) -> float:
        """The wait after so many failures in a row, spread by a quarter; ``chance`` in [0, 1) stands for the die."""
        plain = min(self.longest, self.first * 2.0 ** min(failures - 1, 60))
        thrown = random.random() if chance is None else chance  # noqa: S311 (nothing to guess)
        return plain * (1 - SPREAD + 2 * SPREAD * thrown)
