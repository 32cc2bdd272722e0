"""How a query is pulled towards the image features of a cache."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ibllm_core.contract.base import Contract

Formula = Literal["released", "paper"]


class CacheSettings(Contract):
    """Settings of one request; the defaults and ranges are those of the released code and its interface."""

    formula: Formula = Field("released", description="paper: equations 3 and 4 as printed, with raw cosines")
    k: int = Field(10, ge=1, le=100, description="nearest image features that take part")
    temperature: float = Field(20.0, ge=0, le=100, description="factor of the cosines in the softmax; released only")
    weight: float = Field(0.5, ge=0, le=1, description="share of the cache: 0 leaves the query as it is")
