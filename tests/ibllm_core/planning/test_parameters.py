from typing import Any

import pytest

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.errors import InvalidWeightsError
from ibllm_core.planning.base_size import read_size
from ibllm_core.planning.parameters import bind_parameters, frozen_parameters, largest_trained, trained_parameters
from tests.ibllm_core.planning.models import FEATURE_DIM, LLAMA_7B, real_model, size_of

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
BASES = {
    "plain": SMALL,
    "grouped, tied": {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "wide heads": {**SMALL, "num_key_value_heads": 1, "head_dim": 16},
    "biased": {**SMALL, "attention_bias": True, "mlp_bias": True},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "token_add": {},
    "released": {"fusion": "value_gate", "preset": "released"},
    "prefix": {"fusion": {"kind": "adapter_prefix", "prompts": 3}},
    "prefix in two layers": {"fusion": {"kind": "adapter_prefix", "prompts": 5, "layers": [0, 2]}},
    "concat": {"fusion": {"kind": "concat", "tokens": 4}},
    "layer norm": {"bind_norm": "layer"},
    "legacy": {"bind_norm": "legacy"},
    "low rank": {"lora": {"rank": 3, "targets": ["q_proj", "down_proj"]}},
}


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("base", BASES)
def test_counts_are_those_of_the_model(base: str, adapter: str, stage: TrainingStage) -> None:
    model = real_model(BASES[base], stage, device="meta", **ADAPTERS[adapter])
    counted = size_of(BASES[base]), AdapterConfig.model_validate(ADAPTERS[adapter]), stage, FEATURE_DIM
    trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    assert trained_parameters(*counted) == sum(trained)
    assert frozen_parameters(*counted) == sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert largest_trained(*counted[:3]) >= max(trained) or adapter.startswith("prefix")


@pytest.mark.parametrize(("stage", "trained"), [("stage1", 608_190_464 + 32), ("stage2", 41_340_960)])
def test_the_papers_model_has_the_papers_counts(stage: TrainingStage, trained: int) -> None:
    counted = size_of(LLAMA_7B), AdapterConfig(), stage, 1024
    assert trained_parameters(*counted) == trained
    model = real_model(LLAMA_7B, stage, device="meta", feature_dim=1024)
    assert sum(p.numel() for p in model.parameters()) == trained + frozen_parameters(*counted)


def test_the_bind_network_has_its_published_size() -> None:
    assert bind_parameters(4096, 1024, "rms") == 608_190_464


def test_a_config_without_sizes_is_refused_with_its_name() -> None:
    with pytest.raises(InvalidWeightsError, match=r"bases/x/config.json .*hidden_size.*import-base"):
        read_size({"num_attention_heads": 4}, "bases/x/config.json")
