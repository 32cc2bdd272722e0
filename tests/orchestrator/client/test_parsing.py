"""A service that is newer than its client says more than the client knows."""

from typing import Any

import pytest

from ibllm_core.contract.api.audit import ShownAuditEntry
from ibllm_core.contract.api.jobs import FineTuningJob
from orchestrator.client import Client, UnexpectedAnswerError
from orchestrator.client.parsing import parse
from tests.orchestrator.client.work import Work


@pytest.fixture
def job(client: Client, work: Work) -> dict[str, Any]:
    job_id = work.put_job("compile", "stage1")
    return client.jobs.retrieve(job_id).model_dump(mode="json")


def test_new_keys_do_not_break_an_old_client(job: dict[str, Any]) -> None:
    known = parse(FineTuningJob, job)
    for place in (job, job["runs"][0], job["request"], job["request"]["stages"][0]["hyperparameters"]):
        place["something_new"] = {"of": ["a", "later", "year"]}
    assert parse(FineTuningJob, job) == known


def test_what_does_not_fit_is_named_with_its_place_and_the_remedy(job: dict[str, Any]) -> None:
    job["status"] = "levitating"
    with pytest.raises(UnexpectedAnswerError, match=r"FineTuningJob .*\(status: .*install the client") as refused:
        parse(FineTuningJob, job)
    assert "cannot read" in refused.value.message


def test_keys_that_a_model_keeps_are_kept() -> None:
    entry = {
        "id": "a",
        "type": "project.created",
        "effective_at": 1,
        "actor": {"api_key": {"id": "k", "type": "user"}, "ip_address": "::1"},
        "project": None,
        "target": "p",
        "request_id": "r",
        "project.created": {"id": "p", "data": {"name": "x"}},
    }
    parsed = parse(ShownAuditEntry, entry)
    assert parsed.model_dump(mode="json")["project.created"]["data"] == {"name": "x"}
