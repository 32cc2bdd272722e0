import pytest
from pydantic import ValidationError

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import JobRequest


def body(**changes: object) -> dict[str, object]:
    stages = [{"stage": name, "training_file": f"file-{name}"} for name in ("stage1", "stage2")]
    return {"model": "base", "stages": stages, **changes}


def test_a_two_stage_job_is_accepted_with_defaults() -> None:
    request = JobRequest.model_validate(body())
    assert request.adapter == AdapterConfig(fusion="token_add", bind_norm="rms", preset="paper")
    assert (request.adapter.lora.rank, request.adapter.lora.scale, len(request.adapter.lora.targets)) == (16, 1.0, 7)
    assert request.resources.workers == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"stages": [{"stage": "stage2", "training_file": "f"}, {"stage": "stage1", "training_file": "f"}]},
            "stage1 followed by stage2",
        ),
        ({"resources": {"workers": 0}}, "greater than or equal to 1"),
        ({"learning_rte": 1}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(body(**changes))
    assert words in str(caught.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(body(seed=-1, resources={"workers": 0, "zero_stage": 9}))
    assert caught.value.error_count() == 3
