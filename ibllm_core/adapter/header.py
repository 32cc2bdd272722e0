"""What an adapter is, and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError
from torch import Tensor

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.base import Contract
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.errors import InvalidWeightsError

FORMAT_VERSION = 2


class AdapterHeader(Contract):
    """The typed header of an adapter's file.

    ``base_sha256`` is the hash of the base's weights (``ibllm_core.bases``); None where it is not known, as for
    released checkpoints. ``parent`` is the stage-1 adapter that stage 2 began from.
    """

    format_version: Literal[2] = 2
    stage: TrainingStage
    config: AdapterConfig
    feature_dim: int
    vocab_size: int | None
    template: str
    base: str
    base_sha256: str | None
    encoder: str
    dataset: str | None = None
    parent: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A header with every adapted parameter by its name in ``ImageBindLLM``."""

    header: AdapterHeader
    tensors: Mapping[str, Tensor]


def parse_header(text: str | None, file: str) -> AdapterHeader:
    """Read a header; ``InvalidWeightsError`` names the file and what is wrong with it."""
    try:
        content = json.loads(text or "")
        version = content["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidWeightsError(
            f"{file} has no adapter's header: give an adapter that this project wrote, or a released .pth", file=file
        ) from error
    if version != FORMAT_VERSION:
        raise InvalidWeightsError(
            f"{file} has format version {version}, but this program reads {FORMAT_VERSION}: use the program's version "
            "that wrote it, or train again",
            file=file,
            expected=FORMAT_VERSION,
        )
    try:
        return AdapterHeader.model_validate(content)
    except ValidationError as error:
        raise InvalidWeightsError(f"{file} has a header that cannot be used: {error}", file=file) from error
