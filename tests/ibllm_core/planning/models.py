"""Real models to hold the arithmetic against, and LLaMA-7B's size."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for
from ibllm_core.planning.activations import Training
from ibllm_core.planning.base_size import BaseSize, read_size

LLAMA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}
FEATURE_DIM = 20


def size_of(config: dict[str, Any]) -> BaseSize:
    return read_size(LlamaConfig(**config).to_dict(), "config.json")


def paper(stage: TrainingStage = "stage1", **changes: Any) -> Training:
    """The paper's model in bf16 on a GPU."""
    settings: dict[str, Any] = {"element_bytes": 2, "is_on_gpu": True, "adapter": AdapterConfig(), **changes}
    return Training(base=size_of(LLAMA_7B), stage=stage, feature_dim=1024, **settings)


def real_model(
    config: dict[str, Any],
    stage: TrainingStage,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    feature_dim: int = FEATURE_DIM,
    **adapter: Any,
) -> ImageBindLLM:
    """A model that trains the stage; on device ``meta`` it takes no memory."""
    with torch.device(device):
        llama = LlamaForCausalLM(LlamaConfig(**config)).to(dtype).requires_grad_(False).eval()
        model = ImageBindLLM(llama, feature_dim, AdapterConfig.model_validate(adapter), stage)
    freeze_for(stage, model, model.config.preset)
    return model
