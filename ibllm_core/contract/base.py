"""The base of the contract's models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """Unknown keys are errors, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
