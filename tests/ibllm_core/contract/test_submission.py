from typing import Any

import pytest
from pydantic import ValidationError

from ibllm_core.contract.submission import JobSubmission

STAGE1 = {"stage": "stage1", "training_file": "a", "validation_file": "b", "mix": [{"file": "c"}]}
STAGE2 = {"stage": "stage2", "training_file": "d"}


def submission(**fields: Any) -> JobSubmission:
    return JobSubmission.model_validate({"model": "m", **fields})


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def test_all_files_are_named_by_their_fields() -> None:
    assert submission(training_file="a", validation_file="b").files() == {"training_file": "a", "validation_file": "b"}
    assert submission(stages=[STAGE1, STAGE2]).files() == {
        "stages.0.training_file": "a",
        "stages.0.mix.0": "c",
        "stages.0.validation_file": "b",
        "stages.1.training_file": "d",
    }


def test_openais_settings_come_from_either_place_with_ours_beside_them() -> None:
    new = submission(training_file="a", method=supervised(n_epochs=3, row_tokens=64)).supervised
    old = submission(training_file="a", hyperparameters={"n_epochs": 3, "row_tokens": 64}).supervised
    assert new == old and (new.n_epochs, new.batch_size, new.of_ours()) == (3, "auto", {"row_tokens": 64})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "training_file is missing: name an uploaded file, or describe stages"),
        ({"stages": [STAGE2, STAGE1]}, "stage1 followed by stage2, but are stage2 then stage1"),
        ({"stages": [STAGE1], "validation_file": "b"}, "validation_file and stages are both given"),
        ({"stages": [STAGE1], "method": supervised()}, "method and stages are both given"),
        ({"stages": [STAGE1], "training_file": "z"}, "training_file must be stages[0].training_file"),
        ({"training_file": "a", "method": supervised(), "hyperparameters": {}}, "is method's older place"),
        ({"training_file": "a", "method": supervised(n_epochs=1001)}, "n_epochs"),
        ({"training_file": "a", "method": supervised(learning_rte=1)}, "learning_rte"),
        ({"training_file": "a", "method": {"type": "dpo"}}, "supervised"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        submission(**fields)
    assert words in str(refused.value)
