from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.data.blocks import lay_out
from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import Dataset
from ibllm_core.errors import InvalidSpecError
from ibllm_core.model.batch import Batch
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for
from tests.conftest import FEATURE_DIM, PAD, tiny_llama
from tests.ibllm_core.model.exact import FUSIONS
from tests.memory import saved_bytes


def losses(model: ImageBindLLM, dataset: Dataset, rows: list[list[int]], width: int = 20) -> torch.Tensor:
    return model(collate(dataset, rows, row_tokens=width, pad_token=PAD))


def test_open_gates_change_the_loss_of_samples_with_a_picture_only(open_model: ImageBindLLM, dataset: Dataset) -> None:
    for index, feature in enumerate(dataset.feature_S):
        seen = collate(dataset, [[index]], row_tokens=6, pad_token=PAD)
        blind = collate(dataset, [[index]], row_tokens=6, pad_token=PAD, feature_of=np.full(4, -1))
        changed = not torch.equal(open_model(seen), open_model(blind))
        assert changed == (feature >= 0)


def test_stage_1_gives_gradients_to_bind_network_and_gates_alone(open_model: ImageBindLLM, dataset: Dataset) -> None:
    freeze_for("stage1", open_model)
    losses(open_model, dataset, [[0, 1, 2, 3]]).sum().backward()
    with_gradient = {name.split(".")[0] for name, p in open_model.named_parameters() if p.grad is not None}
    assert with_gradient == {"bind_network", "fusion"}
    assert bool((open_model.fusion.gates.grad != 0).all())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fresh_stage_2_parts_change_nothing(fusion: Any, dataset: Dataset) -> None:
    found = []
    for stage in ("stage1", "stage2"):
        llama = tiny_llama()
        torch.manual_seed(1)
        model = ImageBindLLM(llama, FEATURE_DIM, AdapterConfig(fusion=fusion), stage)
        batch = collate(dataset, [[0, 1, 2, 3]], row_tokens=30, pad_token=PAD, media_tokens=model.fusion.media_tokens)
        found.append(model(batch))
    torch.testing.assert_close(found[0], found[1])


def test_without_media_the_backbone_is_the_plain_llama(open_model: ImageBindLLM, dataset: Dataset) -> None:
    tokens = torch.tensor([[5, 6, 7]])
    before = open_model.llama(input_ids=tokens).logits
    losses(open_model, dataset, [[0, 1]])
    assert torch.equal(open_model.llama(input_ids=tokens).logits, before)


def test_dropout_is_for_training_alone(dataset: Dataset) -> None:
    model = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig(lora={"rank": 4, "dropout": 0.5}), "stage2")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_up." in name:
                parameter.normal_()
    drawn = [losses(model, dataset, [[0, 1]]) for _ in range(2)]
    assert not torch.equal(drawn[0], drawn[1])
    model.eval()
    assert torch.equal(losses(model, dataset, [[0, 1]]), losses(model, dataset, [[0, 1]]))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_rank_without_rows_still_gets_zero_gradients(fusion: Any, dataset: Dataset) -> None:
    model = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig(fusion=fusion))
    freeze_for("stage1", model)
    losses(model, dataset, [[]]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert not bool(parameter.grad.any()), name


def test_layers_that_the_base_lacks_are_refused() -> None:
    config = AdapterConfig(fusion={"kind": "adapter_prefix", "layers": [0, 2]})
    with pytest.raises(InvalidSpecError, match=r"layers is \[0, 2\].*from 0 to 1"):
        ImageBindLLM(tiny_llama(), FEATURE_DIM, config)


@pytest.mark.parametrize("config", [{"fusion": "attention"}, {"lora": {"rank": 0}}, {"bind_norm": "batch"}, {"k": 1}])
def test_unknown_settings_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(config)):
        AdapterConfig.model_validate(config)


def packed_batch(count: int, length: int, labels: int, feature_dim: int) -> Batch:
    """Without padding, of samples of one length whose last tokens are labels."""
    tokens = count * length
    return Batch(
        tokens_T=torch.ones(tokens, dtype=torch.long),
        positions_T=torch.arange(length).repeat(count),
        segments_T=torch.arange(count).repeat_interleave(length),
        blocks=lay_out(np.full(count, length), np.arange(count), tokens),
        places_N=torch.arange(tokens).view(-1, length)[:, -labels - 1 : -1].flatten(),
        targets_N=torch.ones(count * labels, dtype=torch.long),
        features_SF=torch.randn(count, feature_dim),
    )


@pytest.mark.parametrize("fusion", ["token_add", "value_gate"])
def test_a_token_of_the_7b_costs_at_most_4_1_n_flops(fusion: str) -> None:
    """Forward and backward through frozen layers are 2 N each; captions of 73 tokens, 30 of them labels.

    What is above 4 N is attention, bind network and head.
    """
    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    with torch.device("meta"):
        model = ImageBindLLM(LlamaForCausalLM(config).bfloat16(), 1024, AdapterConfig(fusion=fusion))
    freeze_for("stage1", model)
    batch = packed_batch(12, 73, 30, 1024).to(torch.device("meta"))
    with FlopCounterMode(display=False) as counter:
        model(batch).sum().backward()
    block_weights = sum(p.numel() for layer in model.llama.model.layers for p in layer.parameters() if p.ndim == 2)
    assert block_weights == 6_476_005_376  # N
    assert 3.9 < counter.get_total_flops() / len(batch.tokens_T) / block_weights <= 4.1


def saved_by_a_layer(fusion: str, *, frozen: bool) -> float:
    """Bytes that one more layer keeps for each token and channel, in bfloat16 at the proportions of the 7B."""
    dim, batch, found = 256, packed_batch(8, 64, 30, 32), []
    for layers in (2, 4):
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=dim,
            intermediate_size=dim * 43 // 16,
            num_hidden_layers=layers,
            num_attention_heads=8,
        )
        model = ImageBindLLM(LlamaForCausalLM(config).bfloat16(), 32, AdapterConfig(fusion=fusion))
        freeze_for("stage1", model)
        if not frozen:
            model.llama.model.layers.requires_grad_(True)
        found.append(saved_bytes(model, batch))
    return (found[1] - found[0]) / 2 / len(batch.tokens_T) / dim


@pytest.mark.parametrize("fusion", ["token_add", "value_gate"])
def test_frozen_linears_save_no_inputs(fusion: str) -> None:
    """37 bytes a token, layer and channel, that is 4.8 MB a token of the 7B; were they trained, a quarter more."""
    frozen = saved_by_a_layer(fusion, frozen=True)
    assert frozen <= 37
    assert saved_by_a_layer(fusion, frozen=False) >= 1.2 * frozen
