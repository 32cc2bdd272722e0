"""The model against an implementation written from the formulas alone: logits, loss, gradients of all that trains."""

from typing import Any

import pytest
import torch

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for, trained_parameters
from tests.conftest import FEATURE_DIM, tiny_llama
from tests.ibllm_core.model.exact import (
    FUSIONS,
    Sample,
    as_batch,
    exact_model,
    plain_config,
    plain_weights,
    random_samples,
)
from tests.reference import plain

EXACT = {"rtol": 1e-9, "atol": 1e-11}
ROWS = [[4, 0, 3], [1, 5, 2]]
LLAMAS: dict[str, dict[str, Any]] = {
    "grouped queries, tied": {},
    "one key a head, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "rope of Llama 3, biased attention": {
        "attention_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
}
LORA = {"rank": 3, "alpha": 4.5, "targets": ["q_proj", "v_proj", "o_proj", "down_proj"]}
CONFIGS: list[dict[str, Any]] = [
    *({"fusion": fusion, "lora": {"rank": 2}} for fusion in FUSIONS),
    {"fusion": {"kind": "adapter_prefix", "prompts": 1, "layers": [1]}, "bind_norm": "layer", "lora": LORA},
    {"fusion": "value_gate", "bind_norm": "legacy", "lora": LORA},
]


def name_of(config: dict[str, Any]) -> str:
    fusion = config["fusion"]
    return f"{fusion if isinstance(fusion, str) else fusion['kind']}-{config.get('bind_norm', 'rms')}"


def our_logits(model: ImageBindLLM, sample: Sample) -> torch.Tensor:
    batch = as_batch(model, [sample], [[0]], 12)
    start = model.fusion.media_tokens if sample[2] is not None else 0
    return model.llama.lm_head(model.packed_hidden(batch)[start : start + len(sample[0])])


@pytest.mark.parametrize("llama", LLAMAS)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("settings", CONFIGS, ids=name_of)
def test_logits_loss_and_gradients(settings: dict[str, Any], stage: Any, llama: str) -> None:
    model = exact_model(AdapterConfig.model_validate(settings), stage, **LLAMAS[llama])
    freeze_for(stage, model)
    samples, config, weights = random_samples(6), plain_config(model), plain_weights(model)
    for sample in samples[1:3]:
        torch.testing.assert_close(
            our_logits(model, sample), plain.logits(weights, config, sample[0], sample[2]), **EXACT
        )

    losses = model(as_batch(model, samples, ROWS, 36))
    loss = losses.sum() / len(losses)
    expected = plain.loss(weights, config, samples)
    torch.testing.assert_close(loss, expected, **EXACT)
    loss.backward()
    expected.backward()
    for name, parameter in trained_parameters(model):
        assert parameter.grad is not None and bool(parameter.grad.any()), name
        torch.testing.assert_close(
            parameter.grad, weights[name].grad, **EXACT, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("settings", CONFIGS[:3], ids=name_of)
def test_zero_gates_give_the_plain_llama_bit_by_bit(settings: dict[str, Any]) -> None:
    with_media, without = random_samples(2)[0], None
    model = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig.model_validate(settings))
    tokens, prompt_length, feature = with_media
    assert feature is not None
    with torch.no_grad():
        seen = our_logits(model, (tokens, prompt_length, feature.float()))
        assert torch.equal(seen, our_logits(model, (tokens, prompt_length, without)))
        # Stock transformers under a mask, as in generation: another attention adds up in another order.
        batch = as_batch(model, [(tokens, prompt_length, feature.float())], [[0]], len(tokens))
        shape = {"attention_mask": torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()[None, None]}
        stock = tiny_llama()(input_ids=batch.tokens_T[None], **shape).logits
        media = model.fusion.media(model.condition(batch.features_SF), torch.zeros(1, 1).long())
        assert torch.equal(model.llama(input_ids=batch.tokens_T[None], **shape, media=media).logits, stock)
        model.fusion.gates.fill_(0.5)
        assert not torch.equal(our_logits(model, (tokens, prompt_length, feature.float())), seen)


def test_one_prompt_a_layer_is_the_value_gate() -> None:
    """The softmax over one prompt is 1; two implementations that share no line must agree."""
    gate = exact_model(AdapterConfig(fusion="value_gate"))
    prefix = exact_model(AdapterConfig(fusion={"kind": "adapter_prefix", "prompts": 1}))
    with torch.no_grad():
        prefix.bind_network.load_state_dict(gate.bind_network.state_dict())
        prefix.fusion.gates.copy_(gate.fusion.gates)
        prefix.fusion.prompts.copy_(gate.fusion.queries[:, None])
        samples = random_samples(6)
        torch.testing.assert_close(
            prefix(as_batch(prefix, samples, ROWS, 36)), gate(as_batch(gate, samples, ROWS, 36)), **EXACT
        )


@pytest.mark.parametrize("settings", CONFIGS, ids=name_of)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_packed_rows_equal_padded_ones(settings: dict[str, Any], stage: Any) -> None:
    """Loss and gradients to 1e-12: packing is a matter of speed alone."""
    model = exact_model(AdapterConfig.model_validate(settings), stage)
    freeze_for(stage, model)
    samples = random_samples(6)

    def loss_and_gradients(rows: list[list[int]], width: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss = model(as_batch(model, samples, rows, width)).mean()
        return loss, list(torch.autograd.grad(loss, [p for _, p in trained_parameters(model)]))

    packed = loss_and_gradients(ROWS, 36)
    padded = loss_and_gradients([[index] for index in range(6)], 20)
    torch.testing.assert_close(packed, padded, rtol=1e-12, atol=1e-12)
