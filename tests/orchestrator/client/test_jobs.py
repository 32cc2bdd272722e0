"""Jobs through the client, against the service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ibllm_core.contract.states import JobStatus
from ibllm_core.contract.submission import JobSubmission
from orchestrator.client import Client, ConflictError, InvalidRequestError, NotFoundError
from tests.orchestrator.api.service import BASE, ENCODER, Service
from tests.orchestrator.api.test_openai_jobs import captions, put_config
from tests.orchestrator.client.work import Work


@pytest.fixture(scope="module")
def submission(service: Service) -> JobSubmission:
    file = service.file("captions.jsonl", captions())
    return JobSubmission(model=BASE, encoder=ENCODER, training_file=file, metadata={"team": "vision"})


def test_a_job_is_submitted_as_a_model_or_as_a_mapping(client: Client, submission: JobSubmission) -> None:
    job = client.jobs.submit(submission)
    same = client.jobs.submit(submission.model_dump(mode="json", exclude_unset=True))
    assert job.status == JobStatus.QUEUED and job.metadata == {"team": "vision"}
    assert job.id != same.id  # two calls are two jobs, however like they are
    assert client.jobs.retrieve(job.id).request == same.request


def test_a_key_of_ones_own_finds_the_job_again(client: Client, submission: JobSubmission) -> None:
    with ThreadPoolExecutor(4) as pool:  # the client is safe for threads
        made = list(pool.map(lambda _: client.jobs.submit(submission, idempotency_key="mine"), range(8)))
    assert len({job.id for job in made}) == 1


def test_an_estimate_creates_nothing(client: Client, submission: JobSubmission, service: Service) -> None:
    put_config(service)
    before = [job.id for job in client.jobs.list()]
    estimate = client.jobs.estimate(submission)
    assert [(stage.stage, stage.samples) for stage in estimate.stages] == [("stage1", 3)]
    assert [job.id for job in client.jobs.list()] == before


def test_what_is_wrong_is_named_by_its_field(client: Client, submission: JobSubmission) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        client.jobs.submit({**submission.model_dump(mode="json", exclude_unset=True), "priority": "urgent"})
    assert refused.value.param == "priority" and refused.value.request_id


def test_jobs_are_found_by_metadata_newest_first(client: Client, work: Work) -> None:
    made = [work.put_job(labels={"batch": "list", "n": str(n)}) for n in range(3)]
    assert [job.id for job in client.jobs.list(metadata={"batch": "list"})] == made[::-1]
    assert [job.id for job in client.jobs.list(metadata={"batch": "list", "n": "1"})] == [made[1]]
    assert len(list(client.jobs.list(metadata={"batch": "list"}, limit=2))) == 2


def test_a_job_is_paused_resumed_and_cancelled(client: Client, work: Work) -> None:
    job_id = work.put_job()
    with pytest.raises(ConflictError, match="not paused"):
        client.jobs.resume(job_id)
    assert client.jobs.pause(job_id).pause_requested
    resumed = client.jobs.resume(job_id, gpu_hours=2.5)
    assert not resumed.pause_requested and resumed.budget and resumed.budget.gpu_hours == 2.5
    assert client.jobs.cancel(job_id).cancel_requested
    assert [event.message for event in client.jobs.events(job_id, limit=2)] == [
        "the job is being cancelled",
        "the job goes on",
    ]


def test_checkpoints_are_listed_newest_first(client: Client, work: Work) -> None:
    job_id = work.put_job()
    for step in (10, 20):
        work.save(job_id, "stage1", step, train_loss=2.5, gate_abs_mean=0.01)
    found = list(client.jobs.checkpoints(job_id))
    assert [checkpoint.step_number for checkpoint in found] == [20, 10]
    assert found[0].metrics == {"train_loss": 2.5, "gate_abs_mean": 0.01}


def test_what_is_not_there_is_not_found(client: Client) -> None:
    for ask in (client.jobs.retrieve, client.jobs.cancel, client.jobs.pause, client.jobs.logs):
        with pytest.raises(NotFoundError, match="there is no job 'ftjob-none'"):
            ask("ftjob-none")
    with pytest.raises(NotFoundError):
        next(client.jobs.events("ftjob-none"))
