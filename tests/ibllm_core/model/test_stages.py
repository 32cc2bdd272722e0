from typing import Any

import pytest
import torch

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.errors import FrozenWeightsMovedError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stage_proof import hash_frozen_groups, prove, snapshot
from ibllm_core.model.stages import freeze_for, group_of, trained_parameters
from tests.conftest import FEATURE_DIM, tiny_llama

ALL_LINEARS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def build(stage: Any, **config: Any) -> ImageBindLLM:
    model = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig.model_validate(config), stage)
    freeze_for(stage, model, model.config.preset)
    return model


def trained_groups(model: ImageBindLLM) -> set[str]:
    return {group_of(name) for name, _ in trained_parameters(model)}


@pytest.mark.parametrize(
    ("fusion", "preset", "stage1", "stage2"),
    [
        ("token_add", "paper", {"bind_network", "gates"}, {"gates", "lora", "bias", "norm"}),
        ("value_gate", "paper", {"bind_network", "queries", "gates"}, {"gates", "lora", "bias", "norm"}),
        ("value_gate", "released", {"bind_network", "queries", "gates"}, {"lora", "bias", "norm"}),
        ("adapter_prefix", "paper", {"bind_network", "queries", "gates"}, {"gates", "lora", "bias", "norm"}),
        ("concat", "paper", {"bind_network", "queries"}, {"lora", "bias", "norm"}),
    ],
)
def test_each_stage_trains_its_groups(fusion: str, preset: str, stage1: set[str], stage2: set[str]) -> None:
    assert trained_groups(build("stage1", fusion=fusion, preset=preset)) == stage1
    assert trained_groups(build("stage2", fusion=fusion, preset=preset)) == stage2


def test_biases_sit_where_the_released_weights_have_them_and_lora_where_it_is_asked_for() -> None:
    model = build("stage2", lora={"rank": 2, "targets": ["q_proj", "up_proj"]})
    names = [name for name, _ in model.named_parameters()]
    biased = {name.split(".")[-2] for name in names if group_of(name) == "bias"}
    assert biased == ALL_LINEARS - {"k_proj", "v_proj"}
    assert {name.split(".")[-3] for name in names if group_of(name) == "lora"} == {"q_proj", "up_proj"}


def test_the_released_stage_2_has_its_published_size() -> None:
    """41,340,928 at 7B: LoRA 39,976,960, biases 1,097,728, norms 266,240."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    with torch.device("meta"):
        model = ImageBindLLM(LlamaForCausalLM(config), 1024, AdapterConfig(fusion="value_gate"), "stage2")
    freeze_for("stage2", model, "released")
    sizes: dict[str, int] = {}
    for name, parameter in trained_parameters(model):
        sizes[group_of(name)] = sizes.get(group_of(name), 0) + parameter.numel()
    assert sizes == {"lora": 39_976_960, "bias": 1_097_728, "norm": 266_240}
    freeze_for("stage1", model, "released")
    assert sum(p.numel() for _, p in trained_parameters(model)) == 608_322_560


def test_groups_are_told_by_name() -> None:
    assert group_of("bind_network.blocks.0.norm.weight") == "bind_network"
    assert group_of("llama.model.norm.weight") == "norm"
    assert group_of("llama.model.layers.0.self_attn.q_proj.base.weight") == "llama"
    assert group_of("llama.model.layers.0.self_attn.q_proj.base.bias") == "llama"
    assert group_of("llama.model.layers.0.self_attn.q_proj.bias") == "bias"


def test_the_hash_tells_when_a_frozen_weight_moves() -> None:
    model = build("stage1")
    before = hash_frozen_groups(model)
    with torch.no_grad():
        model.fusion.gates += 1  # trained: not part of the proof
    assert hash_frozen_groups(model) == before
    with torch.no_grad():
        model.llama.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    after = hash_frozen_groups(model)
    assert after["llama"] != before["llama"]
    assert after["norm"] == before["norm"]


def test_a_proof_shows_what_stayed_and_how_far_the_rest_went() -> None:
    model = build("stage1")
    before = snapshot(model)
    with torch.no_grad():
        model.fusion.gates[1] += 3
        model.fusion.gates[0] -= 4
    proof = prove(before, hash_frozen_groups(model), {name: p.detach() for name, p in trained_parameters(model)})
    gates = proof.trained["gates"]
    assert (gates.parameters, gates.norm_before, gates.drift, gates.drift_max) == (2, 0, 5, 4)
    assert proof.trained["bind_network"].drift == 0
    assert proof.trained["bind_network"].norm_before > 1
    llama = proof.frozen["llama"]
    assert llama.sha256_before == llama.sha256_after
    assert llama.parameters == sum(p.numel() for n, p in model.named_parameters() if group_of(n) == "llama")


def test_a_stage_in_which_something_frozen_moved_has_no_proof() -> None:
    model = build("stage2")
    before = snapshot(model)
    with torch.no_grad():
        model.bind_network.project.bias[0] += 1
    with pytest.raises(FrozenWeightsMovedError, match="bind_network"):
        prove(before, hash_frozen_groups(model), {name: p.detach() for name, p in trained_parameters(model)})
