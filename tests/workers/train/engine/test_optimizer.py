"""Which parameter trains at which rate, and the rate's course."""

from __future__ import annotations

import pytest

from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for
from workers.train.engine.optimizer import parameter_groups, rate_share, warmup_steps


def test_gates_have_their_own_rate_and_only_matrices_decay(model: ImageBindLLM) -> None:
    freeze_for("stage1", model)
    groups = parameter_groups(model, Hyperparameters(learning_rate=1e-4, gate_learning_rate=1e-2, weight_decay=0.5))
    by_setting = {(group["peak_lr"], group["weight_decay"]): group["params"] for group in groups}
    assert by_setting.keys() == {(1e-4, 0.5), (1e-4, 0.0), (1e-2, 0.0)}
    assert len(by_setting[1e-2, 0.0]) == 1 and by_setting[1e-2, 0.0][0] is model.fusion.gates
    assert all(parameter.ndim == 2 for parameter in by_setting[1e-4, 0.5])
    assert all(parameter.ndim == 1 for parameter in by_setting[1e-4, 0.0])
    assert all(group["lr"] == group["peak_lr"] for group in groups)


def test_what_is_frozen_is_in_no_group(model: ImageBindLLM) -> None:
    freeze_for("stage1", model)
    model.fusion.gates.requires_grad_(False)
    trained = [parameter for group in parameter_groups(model, Hyperparameters()) for parameter in group["params"]]
    assert sorted(map(id, trained)) == sorted(id(p) for p in model.bind_network.parameters())


def test_layers_before_the_last_learn_slower_by_the_decay() -> None:
    from ibllm_core.contract.adapter_config import AdapterConfig
    from tests.conftest import FEATURE_DIM, tiny_llama

    model = ImageBindLLM(tiny_llama(), FEATURE_DIM, AdapterConfig(), "stage2")
    freeze_for("stage2", model)
    groups = parameter_groups(model, Hyperparameters(learning_rate=1e-4, layer_decay=0.5))
    rates = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if ".layers.0." in name and parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(0.5e-4)
        if ".layers.1." in name and parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(1e-4)


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [rate_share(step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001


def test_the_rate_may_end_above_zero_and_begin_without_a_warmup() -> None:
    rates = [rate_share(step, 50, 0, 0.1) for step in range(50)]
    assert rates[0] == 1.0
    assert 0.1 < rates[-1] < 0.101 + 0.01


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 6),
        ({"warmup_share": 0.0}, 1),
        ({"warmup_steps": 7}, 7),
        ({"warmup_steps": 0}, 0),
        ({"warmup_epochs": 0.5, "n_epochs": 5}, 10),
    ],
)
def test_a_warmup_is_given_in_steps_epochs_or_a_share(settings: dict[str, float], expected: int) -> None:
    assert warmup_steps(Hyperparameters(**settings), 100) == expected
