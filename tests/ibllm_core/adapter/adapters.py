"""Adapters made by hand, for the tests of their formats."""

from __future__ import annotations

from typing import Any

import torch

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter, AdapterHeader
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import adapted_parameters
from tests.conftest import FEATURE_DIM, tiny_llama


def random_model(config: AdapterConfig, stage: TrainingStage, **llama: Any) -> ImageBindLLM:
    """A model in float32 whose adapted tensors are all random."""
    model = ImageBindLLM(tiny_llama(**llama), FEATURE_DIM, config, stage)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, parameter in adapted_parameters(model, stage):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def adapter_of(model: ImageBindLLM, stage: TrainingStage, **changes: Any) -> Adapter:
    values = {
        "stage": stage,
        "config": model.config,
        "feature_dim": model.bind_network.feature_dim,
        "vocab_size": model.shape.vocab_size,
        "template": "short",
        "base": "tiny",
        "base_sha256": "a" * 64,
        "encoder": "none",
        "dataset": "ds-1",
        "parent": None if stage == "stage1" else "models/first",
        "job_id": "ftjob-1",
    }
    header = AdapterHeader.model_validate({**values, **changes})
    return Adapter(header=header, tensors=files.adapted_tensors(model, header))
