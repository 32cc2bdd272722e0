"""What the scheduler makes of jobs, pass by pass."""

from __future__ import annotations

import pytest
from sqlalchemy import func, update

from ibllm_core.contract.states import JobStatus, TerminationReason
from orchestrator.db.models import File, Model, OutboxMessage, WebhookEndpoint
from orchestrator.errors import ClusterUnreachableError
from orchestrator.ids import new_id
from orchestrator.scheduler import effects
from tests.orchestrator.api.tenants import new_project
from tests.orchestrator.scheduler.house import House


def compiled(house: House, **fields: object) -> str:
    """A job whose stage 1 was handed to Ray."""
    job = house.submit(**fields)
    house.passes()
    house.lives(job, "compile")
    house.ends(job, "compile")
    house.passes(3)
    assert house.states(job)["stage1"] == "starting"
    return job


def test_a_job_goes_its_way_and_leaves_a_model(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.registry.tracker.is_complete", lambda job: True)  # no MLflow here
    with house.sessions() as session:
        hook = {
            "name": "hook",
            "url": "https://none.example",
            "secret": "whsec_",
            "events": ["fine_tuning.job.succeeded"],
        }
        session.add(WebhookEndpoint(id=new_id("we"), project_id=house.tenant.project_id, **hook))
        session.commit()
    job = compiled(house, suffix="mine")
    assert house.ray.submitted == [f"{job}-compile-1", f"{job}-stage1-1"]
    house.lives(job, "stage1")
    house.ends(job, "stage1")
    house.passes(3)
    ended = house.job(job)
    assert ended.status == JobStatus.SUCCEEDED
    with house.sessions() as session:
        model = session.get_one(Model, ended.fine_tuned_model)
    assert (model.project_id, model.stage, model.prefix) == (house.tenant.project_id, "stage1", f"models/{job}")
    sent = house.outbox("webhook")
    assert [message["event"]["data"]["id"] for message in sent] == [job]
    assert house.told(job)[-1].startswith("the job succeeded; its model is ft:tiny:")


def test_a_job_waits_for_the_check_of_its_file_and_is_completed_by_what_it_found(house: House) -> None:
    file = house.file(status="uploaded")
    job = house.submit(training_file=file)
    assert (house.job(job).status, house.states(job)) == (JobStatus.VALIDATING_FILES, {})
    house.passes()
    assert house.job(job).status == JobStatus.VALIDATING_FILES
    house.checked(file)
    house.passes(2)
    assert house.request(job).stages[0].stage == "stage1"
    assert house.states(job) == {"compile": "starting", "stage1": "pending"}


@pytest.mark.parametrize(
    ("stage", "problem", "code", "words"),
    [
        ("stage1", "row 3: has no messages", "invalid_training_file", "row 3: has no messages"),
        ("stage2", None, "stage_mismatch", "holds instructions, which train stage2"),
    ],
)
def test_a_job_whose_file_turns_out_to_be_of_no_use_fails_with_the_field(
    house: House, stage: str, problem: str | None, code: str, words: str
) -> None:
    file = house.file(status="uploaded")
    job = house.submit(training_file=file)
    house.checked(file, problem=problem, stage=stage)
    house.passes()
    failed = house.job(job)
    assert failed.status == JobStatus.FAILED and failed.error is not None
    assert (failed.error["code"], failed.error["param"]) == (code, "training_file")
    assert words in failed.error["message"] and house.told(job)[-1] == failed.error["message"]


def test_a_job_is_cancelled_while_its_file_is_checked(house: House) -> None:
    job = house.submit(training_file=house.file(status="uploaded"))
    house.change(job, cancel_requested=True)
    house.passes()
    assert house.job(job).status == JobStatus.CANCELLED


def test_a_pause_saves_and_a_resume_begins_a_new_attempt(house: House) -> None:
    job = compiled(house)
    house.lives(job, "stage1")
    house.passes()
    house.change(job, pause_requested=True)
    house.passes()
    assert house.states(job)["stage1"] == "stopping"
    house.ends(job, "stage1", TerminationReason.PREEMPTED)
    house.passes(2)
    assert (house.job(job).status, house.states(job)["stage1"]) == (JobStatus.PAUSED, "pending")
    house.passes(2)
    assert house.states(job)["stage1"] == "pending"  # nothing is admitted while it is paused
    house.change(job, pause_requested=False, status=JobStatus.QUEUED)
    house.passes(2)
    assert house.ray.submitted[-1] == f"{job}-stage1-2"
    assert house.told(job)[-2:] == [
        "stage1 was paused and goes on from its last step later",
        "the job is paused; resume it, and it goes on from its last step",
    ]


def test_pauses_are_no_tries(house: House) -> None:
    job = compiled(house, retry={"max_attempts": 1})
    for _ in range(2):
        house.change(job, pause_requested=True)
        house.passes(3)
        house.change(job, pause_requested=False, status=JobStatus.QUEUED)
        house.passes(2)
    assert house.ray.submitted[-1] == f"{job}-stage1-3"
    house.lives(job, "stage1")
    house.ends(job, "stage1", TerminationReason.INFRASTRUCTURE)
    house.passes(2)
    assert house.states(job)["stage1"] == "done"


def test_a_job_that_has_used_its_budget_pauses_and_goes_on_with_a_larger_one(house: House) -> None:
    job = compiled(house, budget={"gpu_hours": 3})
    house.lives(job, "stage1")
    house.held_since(job, hours=2, gpus=1)
    house.passes(2)
    assert house.states(job)["stage1"] == "running"
    house.held_since(job, hours=2, gpus=2)
    house.passes(4)
    paused = house.job(job)
    assert (paused.status, paused.pause_requested) == (JobStatus.PAUSED, True)
    assert any("has used 4.0" in message and "its budget is 3" in message for message in house.told(job))


def test_a_project_waits_for_its_quota_and_others_do_not(house: House) -> None:
    poor = new_project(house.database, max_gpus=1)
    wants = {"workers": 1, "gpus_per_worker": 1}
    jobs = [house.submit(poor, resources=wants), house.submit(poor, resources=wants), house.submit(resources=wants)]
    house.passes(2)
    assert [house.states(job)["compile"] for job in jobs] == ["starting", "pending", "starting"]
    waits = house.job(jobs[1]).runs[0]
    assert waits.wait_code == "quota" and "holds 1 of its 1 GPUs" in str(waits.wait_message)


def test_an_attempt_is_submitted_when_ray_is_back(house: House) -> None:
    job = house.submit()
    submit, house.ray.submit = house.ray.submit, refuse  # type: ignore[method-assign]
    house.passes()
    assert (house.states(job)["compile"], house.ray.submitted) == ("starting", [])
    house.ray.submit = submit  # type: ignore[method-assign]
    due_now(house)
    house.passes()
    assert house.ray.submitted == [f"{job}-compile-1"]


def refuse(attempt_id: str, spec_key: str) -> None:
    raise ClusterUnreachableError("Ray is away")


def due_now(house: House) -> None:
    """Let the time pass that the outbox waits after a failure."""
    with house.sessions() as session:
        session.execute(update(OutboxMessage).values(next_at=func.now()))
        session.commit()


def test_an_attempt_that_was_stopped_is_not_submitted_any_more(house: House) -> None:
    job = house.submit()
    house.passes()
    house.change(job, cancel_requested=True)
    house.passes(3)
    assert house.states(job)["compile"] == "done"
    before = list(house.ray.submitted)
    world = house.reconciler._world
    effects.submit(world, house.sessions, {"attempt_id": f"{job}-compile-1"})  # a message that came late
    assert house.ray.submitted == before


def test_a_higher_class_is_admitted_first(house: House) -> None:
    low = house.submit(priority="low", resources={"workers": 8})
    high = house.submit(priority="high", resources={"workers": 8})
    house.passes()
    assert (house.states(high)["compile"], house.states(low)["compile"]) == ("starting", "pending")


def test_result_files_belong_to_the_jobs_project(house: House) -> None:
    job = house.submit()
    house.passes()
    house.lives(job, "compile")
    with house.sessions() as session:
        attempt = house._attempt(session, job, "compile")
        file = {"key": f"jobs/{job}/x", "filename": "x.csv", "bytes": 3}
        attempt.outcome = {"reason": "succeeded", "message": "", "outputs": {}, "result_files": [file]}
        session.commit()
    house.passes(2)
    with house.sessions() as session:
        assert session.get_one(File, house.job(job).result_files[0]).project_id == house.tenant.project_id
