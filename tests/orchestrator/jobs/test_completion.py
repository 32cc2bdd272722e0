"""What a submission leaves out follows from its files and its parent."""

from __future__ import annotations

from typing import Any

import pytest

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import JobRequest
from ibllm_core.contract.submission import JobSubmission
from orchestrator.errors import InvalidRequestError
from orchestrator.jobs.completion import FileFacts, Surroundings, complete
from orchestrator.jobs.estimate import Amount, steps_of
from orchestrator.jobs.parents import Parent

CAPTIONS = FileFacts(stage="stage1", samples=100, characters=8000)
QUESTIONS = FileFacts(stage="stage2", samples=100, tokens=6400)


def parent(stage: str = "stage1", **changes: Any) -> Parent:
    values = {"name": "ft:m", "job_id": "ftjob-1", "stage": stage, "base": "m", "encoder": "e", "template": "short"}
    return Parent.model_validate({**values, "adapter": {"fusion": "value_gate"}, "prefix": "models/1", **changes})


def completed(file: FileFacts = CAPTIONS, start: Parent | None = None, **fields: Any) -> JobRequest:
    submission = JobSubmission.model_validate({"model": "m", "training_file": "file-1", **fields})
    files = dict.fromkeys(submission.files(), file)
    around = Surroundings(base="m", encoder="e", parent=start, files=files, proposals=lambda: ["ft:m:one"])
    return complete(submission, around)


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def test_captions_mean_stage_1_and_instructions_stage_2() -> None:
    assert [stage.stage for stage in completed(CAPTIONS).stages] == ["stage1"]
    assert [stage.stage for stage in completed(QUESTIONS, parent()).stages] == ["stage2"]


def test_adapter_and_template_are_the_parents_unless_they_are_given() -> None:
    inherited = completed(QUESTIONS, parent())
    assert inherited.adapter == AdapterConfig.model_validate({"fusion": "value_gate"})
    assert (inherited.stages[0].template, inherited.start_from) == ("short", "ft:m")
    given = completed(QUESTIONS, parent(), adapter={"fusion": "value_gate", "lora": {"rank": 4}})
    assert given.adapter.lora.rank == 4


def test_openais_settings_are_told_in_our_units() -> None:
    settings = completed(CAPTIONS, method=supervised(n_epochs=2, batch_size=64, learning_rate_multiplier=0.5))
    chosen = settings.stages[0].hyperparameters
    assert (chosen.n_epochs, chosen.learning_rate, chosen.gate_learning_rate) == (2, 2e-4, 5e-3)
    assert chosen.rows_per_step == 64 * 20 // 256  # a sample has 80 characters, about 20 tokens


@pytest.mark.parametrize(
    ("file", "start", "fields", "param", "words"),
    [
        (QUESTIONS, None, {}, "training_file", "yours on this base: ft:m:one"),
        (CAPTIONS, parent("stage2"), {}, "training_file", "whose bind network is frozen"),
        (FileFacts(), None, {}, "training_file", "was not read yet"),
        (CAPTIONS, parent(encoder="other"), {}, "encoder", "leave encoder out"),
        (CAPTIONS, parent(), {"adapter": {"fusion": "concat"}}, "adapter.fusion", "has fusion value_gate"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    file: FileFacts, start: Parent | None, fields: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        completed(file, start, **fields)
    assert refused.value.param == param and words in refused.value.message


def test_the_pipeline_as_one_job_needs_no_parent() -> None:
    stages = [{"stage": "stage1", "training_file": "a"}, {"stage": "stage2", "training_file": "b"}]
    request = completed(training_file=None, stages=stages)
    assert [stage.stage for stage in request.stages] == ["stage1", "stage2"] and request.start_from is None


def test_steps_are_those_of_packed_rows() -> None:
    stage = completed(CAPTIONS, method=supervised(n_epochs=3, row_tokens=100, rows_per_step=2)).stages[0]
    assert steps_of(stage, Amount(samples=97, tokens=970.0, is_counted=True)) == 3 * 5
    capped = completed(CAPTIONS, method=supervised(n_epochs=3, row_tokens=100, rows_per_step=2, max_steps=4)).stages[0]
    assert steps_of(capped, Amount(samples=97, tokens=970.0, is_counted=True)) == 4
