import copy
import shutil
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.sampling import Sampling
from ibllm_core.model.generation import Request, generate
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.layers import checkpoint_activations, compile_layers
from ibllm_core.model.stages import freeze_for, trained_parameters
from tests.ibllm_core.model.exact import FUSIONS, as_batch, exact_model, random_samples
from tests.memory import saved_bytes


def built(fusion: Any, stage: Any = "stage1", **config: Any) -> ImageBindLLM:
    model = exact_model(AdapterConfig.model_validate({"fusion": fusion, **config}), stage)
    freeze_for(stage, model)
    return model


def step(model: ImageBindLLM, seed: int = 5) -> list[torch.Tensor]:
    """Loss and gradients of a batch of 72 tokens, whose samples depend on the seed."""
    model.zero_grad()
    torch.manual_seed(0)
    loss = model(as_batch(model, random_samples(6, seed=seed), [[0, 1, 2], [3, 4, 5]], 36)).mean()
    loss.backward()
    return [loss.detach(), *(p.grad for _, p in trained_parameters(model) if p.grad is not None)]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_checkpointed_layers_change_nothing(fusion: Any, stage: Any) -> None:
    """Nor does the dropout of LoRA draw anew when they are computed again; in stage 1 LLaMA is in eval mode."""
    model = built(fusion, stage, lora={"rank": 2, "dropout": 0.5 if stage == "stage2" else 0.0})
    model.train(stage == "stage2")
    expected = step(model)
    checkpoint_activations(model)
    for ours, theirs in zip(step(model), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_checkpointed_layers_keep_less_and_compute_more() -> None:
    batch_of = lambda model: as_batch(model, random_samples(6), [[0, 1, 2], [3, 4, 5]], 36)  # noqa: E731
    model = built("token_add")
    kept, flops = [], []
    for _ in range(2):
        kept.append(saved_bytes(model, batch_of(model)))
        with FlopCounterMode(display=False) as counter:
            model(batch_of(model)).sum().backward()
        flops.append(counter.get_total_flops())
        checkpoint_activations(model)
    assert kept[1] < kept[0] / 2
    assert flops[1] > 1.2 * flops[0]


@pytest.mark.parametrize("change", [checkpoint_activations, compile_layers])
def test_generation_keeps_its_plain_layers(change: Any) -> None:
    model = built("value_gate").eval()
    request = [Request(prompt=[5, 6, 7], feature=torch.ones(12, dtype=torch.float64))]
    expected = generate(model, request, Sampling(max_new_tokens=4), frozenset())
    before = counters["stats"]["unique_graphs"]
    change(model)
    assert generate(model, request, Sampling(max_new_tokens=4), frozenset()) == expected
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_compiled_layers_change_nothing_and_are_compiled_once(stage: Any) -> None:
    plain = built("value_gate", stage, lora={"rank": 2})
    compiled = copy.deepcopy(plain)
    compile_layers(compiled)
    counters.clear()
    graphs = []
    for seed in range(4):  # other numbers and lengths of samples
        for ours, theirs in zip(step(compiled, seed), step(plain, seed), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert len(set(graphs)) == 1
