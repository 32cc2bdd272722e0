"""How answers are drawn."""

from __future__ import annotations

from pydantic import Field

from ibllm_core.contract.base import Contract


class Sampling(Contract):
    """Settings of one generation; the defaults are greedy, so that the same request gives the same answer."""

    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0, description="0 takes the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="draw from the likeliest tokens of this probability in all")
    seed: int = Field(0, ge=0, le=2**31 - 1)
    stop: tuple[str, ...] = Field((), max_length=16, description="an answer ends before any of these")
