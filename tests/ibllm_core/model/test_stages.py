import torch

from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.lora import adapt_linears
from ibllm_core.model.stages import freeze_for, group_of, hash_frozen_groups, trained_parameters


def groups(model: ImageBindLLM) -> set[str]:
    return {group_of(name) for name, _ in trained_parameters(model)}


def test_each_stage_trains_its_groups(model: ImageBindLLM) -> None:
    freeze_for("stage1", model)
    assert groups(model) == {"bind_network", "gates"}
    adapt_linears(model.llama.model.layers, rank=2)
    freeze_for("stage2", model)
    assert groups(model) == {"gates", "lora", "bias", "norm"}


def test_biases_sit_where_the_released_weights_have_them(model: ImageBindLLM) -> None:
    adapt_linears(model.llama.model.layers, rank=2)
    biased = {name.split(".")[-2] for name, _ in model.named_parameters() if group_of(name) == "bias"}
    assert biased == {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_norms_of_the_bind_network_belong_to_it(model: ImageBindLLM) -> None:
    assert group_of("bind_network.blocks.0.norm.weight") == "bind_network"
    assert group_of("llama.model.norm.weight") == "norm"
    assert group_of("llama.model.layers.0.self_attn.q_proj.base.weight") == "llama"


def test_the_hash_tells_when_a_frozen_weight_moves(model: ImageBindLLM) -> None:
    freeze_for("stage1", model)
    before = hash_frozen_groups(model)
    with torch.no_grad():
        model.fusion.gates += 1  # trained: not part of the proof
    assert hash_frozen_groups(model) == before
    with torch.no_grad():
        model.llama.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    after = hash_frozen_groups(model)
    assert after["llama"] != before["llama"]
    assert after["norm"] == before["norm"]
