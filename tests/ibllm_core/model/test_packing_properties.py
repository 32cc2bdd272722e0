"""Any packing of any samples is the plain implementation's loss, with its gradients."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.data.packing import order_of, pack
from ibllm_core.model.stages import freeze_for, trained_parameters
from tests.ibllm_core.model.exact import FUSIONS, as_batch, exact_model, plain_config, plain_weights, random_samples
from tests.reference import plain

configs = st.fixed_dictionaries(
    {
        "fusion": st.sampled_from(FUSIONS),
        "bind_norm": st.sampled_from(["rms", "layer", "legacy"]),
        "lora": st.fixed_dictionaries(
            {"rank": st.integers(1, 3), "alpha": st.sampled_from([None, 2.0]), "targets": st.just(["k_proj", "o_proj"])}
        ),
    }
)


@given(
    configs,
    st.sampled_from(["stage1", "stage2"]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 5),
    st.integers(12, 40),
    st.integers(0, 1000),
)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_any_packing(config: Any, stage: Any, kv_heads: int, count: int, row_tokens: int, seed: int) -> None:
    model = exact_model(AdapterConfig.model_validate(config), stage, num_key_value_heads=kv_heads)
    freeze_for(stage, model)
    samples = random_samples(count, seed=seed)
    lengths = [len(t) + (model.fusion.media_tokens if f is not None else 0) for t, _, f in samples]
    rows = pack(order_of([count], [1.0], seed, 0), np.array(lengths), row_tokens)
    weights = plain_weights(model)
    expected = plain.loss(weights, plain_config(model), samples)
    loss = model(as_batch(model, samples, rows, row_tokens)).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)
    loss.backward()
    expected.backward()
    for name, parameter in trained_parameters(model):
        theirs = weights[name].grad
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(
            ours, torch.zeros_like(ours) if theirs is None else theirs, rtol=1e-9, atol=1e-11, msg=name
        )
