"""What a checkpoint says of itself, and what makes two runs the same recipe."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workers.train.world import spec
from workers.train.checkpoint.state import CheckpointState, recipe_of


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 0.1 + 0.2, 1e-320])
def test_a_state_comes_back_as_it_was(loss: float) -> None:
    state = CheckpointState(
        step=7,
        updates=6,
        tokens=900,
        loss_scale=2.0**-20,
        window_loss=loss,
        window_steps=3,
        skipped_steps=1,
        skipped_in_a_row=1,
        recipe="r",
        base_sha256="b",
        validation_loss=loss,
        world_size=2,
        zero_stage=3,
    )
    read = CheckpointState.model_validate_json(state.model_dump_json())
    assert repr(read) == repr(state)


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": {"workers": 8, "zero_stage": 3, "micro_batch_tokens": 128, "compile": True}},
        {"checkpoints": {"every_steps": 3, "keep_last": 9}},
        {"evaluation": {"every_steps": 7}},
        {"validation_dataset": None},
        {"attempt_id": "b", "attempt_number": 2, "run_id": "q", "job_id": "k", "token": "u", "service_url": "http://v"},
        {"adapter_prefix": "models/y"},
    ],
)
def test_a_run_may_change_between_its_attempts_what_computes_the_same(changes: dict[str, Any]) -> None:
    assert recipe_of(spec(**changes)) == recipe_of(spec())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"base": "other"},
        {"encoder": "other"},
        {"template": "caption"},
        {"datasets": [{"dataset": "other", "weight": 1.0}]},
        {"datasets": [{"dataset": "ds-train", "weight": 0.5}]},
        {"adapter": {"fusion": "value_gate"}},
        {"hyperparameters": {"rows_per_step": 5}},
        {"hyperparameters": {"learning_rate": 1e-5}},
        {"hyperparameters": {"n_epochs": 2}},
        {"parent_adapter": "models/other"},
    ],
)
def test_data_and_settings_are_the_recipe(changes: dict[str, Any]) -> None:
    assert recipe_of(spec(**changes)) != recipe_of(spec())
