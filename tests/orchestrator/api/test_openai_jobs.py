"""Fine-tuning jobs through OpenAI's own client, unmodified: what is there, what is inferred, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from openai import OpenAI

from ibllm_core.contract import layout
from ibllm_core.contract.states import JobStatus, RunState, TerminationReason
from orchestrator.db.models import Attempt, File, Job, Model, Project
from orchestrator.db.session import connect, session_factory
from orchestrator.jobs.naming import checkpoint_name, model_name
from tests.ibllm_core.formats.files import chat_row, data_url, json_lines, picture
from tests.orchestrator.api.service import API_KEY, BASE, ENCODER, Live, Service
from tests.orchestrator.api.tenants import new_project

ORGANIZATION = "org-default"
OURS: dict[str, Any] = {"encoder": ENCODER}


def captions(count: int = 3) -> bytes:
    return json_lines([{"image": data_url(picture(n)), "caption": "a cat on the mat"} for n in range(count)])


def supervised(**hyperparameters: Any) -> Any:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def client(live: Live) -> OpenAI:
    return live.openai(max_retries=0)


@pytest.fixture(scope="module")
def caption_file(service: Service) -> str:
    return service.file("captions.jsonl", captions())


@pytest.fixture(scope="module")
def chat_file(service: Service) -> str:
    return service.file("chat.jsonl", json_lines([chat_row(), chat_row("where?", "there")]))


@pytest.fixture(scope="module")
def stage1_model(client: OpenAI, caption_file: str, database: str) -> str:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=caption_file, suffix="aligned", extra_body=OURS)
    return finish(database, job.id)


def finish(database: str, job_id: str) -> str:
    """Do what the scheduler does when all runs of a job have succeeded; returns the model's name."""
    with session_factory(connect(database))() as session:
        job = session.get_one(Job, job_id)
        for run in job.runs:
            run.state, run.reason = RunState.DONE, TerminationReason.SUCCEEDED
        trained = [run for run in job.runs if run.kind.startswith("stage")][-1]
        trained.outputs = {"adapter": f"models/{job_id}", "adapter_sha256": "abc", "trained_tokens": 640}
        organization_id = session.get_one(Project, job.project_id).organization_id
        name = model_name(job, organization_id)
        made = {"base": job.request["model"], "encoder": job.request["encoder"], "stage": trained.kind}
        session.add(
            Model(id=name, project_id=job.project_id, job_id=job_id, prefix=f"models/{job_id}", sha256="abc", **made)
        )
        job.status, job.fine_tuned_model = JobStatus.SUCCEEDED, name
        session.commit()
    return name


def test_captions_mean_stage_1(client: OpenAI, caption_file: str) -> None:
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=caption_file,
        validation_file=caption_file,
        seed=7,
        suffix="mine",
        metadata={"team": "vision"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "learning_rate_multiplier": 2}},
        },
        extra_body=OURS,
    )
    assert job.object == "fine_tuning.job" and job.status == "queued"
    assert (job.model, job.training_file, job.validation_file, job.seed) == (BASE, caption_file, caption_file, 7)
    assert job.metadata == {"team": "vision"} and job.organization_id == ORGANIZATION
    assert (job.hyperparameters.n_epochs, job.hyperparameters.learning_rate_multiplier) == (2, 2)
    assert job.method is not None and job.method.type == "supervised"
    stage = job.request["stages"][0]  # type: ignore[attr-defined]
    assert (stage["stage"], stage["hyperparameters"]["learning_rate"]) == ("stage1", 8e-4)
    assert [run["kind"] for run in job.runs] == ["compile", "stage1", "evaluate"]  # type: ignore[attr-defined]


def test_instructions_mean_stage_2_and_start_from_a_model_by_its_name(
    client: OpenAI, chat_file: str, stage1_model: str
) -> None:
    job = client.fine_tuning.jobs.create(model=stage1_model, training_file=chat_file)
    assert (job.model, job.request["stages"][0]["stage"]) == (BASE, "stage2")  # type: ignore[attr-defined]
    assert job.parent["name"] == stage1_model and job.parent["stage"] == "stage1"  # type: ignore[attr-defined]
    assert job.request["encoder"] == ENCODER  # type: ignore[attr-defined]
    assert [run["kind"] for run in job.runs] == ["compile", "stage2"]  # type: ignore[attr-defined]


def test_instructions_without_a_model_to_start_from_are_refused_with_those_there_are(
    client: OpenAI, chat_file: str, stage1_model: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(model=BASE, training_file=chat_file, extra_body=OURS)
    assert (refused.value.code, refused.value.param) == ("stage_mismatch", "training_file")
    assert "set model to one of your fine-tuned models" in refused.value.message
    assert stage1_model in refused.value.message
    assert refused.value.request_id


def test_captions_do_not_start_from_stage_2(
    client: OpenAI, caption_file: str, chat_file: str, stage1_model: str, database: str
) -> None:
    second = finish(database, client.fine_tuning.jobs.create(model=stage1_model, training_file=chat_file).id)
    with pytest.raises(openai.BadRequestError, match="whose bind network is frozen") as refused:
        client.fine_tuning.jobs.create(model=second, training_file=caption_file)
    assert refused.value.code == "stage_mismatch"
    going_on = client.fine_tuning.jobs.create(model=second, training_file=chat_file)
    assert going_on.parent["stage"] == "stage2"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("extra", "param"),
    [({"encoder": "imagebind"}, "encoder"), ({"adapter": {"fusion": "concat"}}, "adapter.fusion")],
)
def test_what_does_not_fit_the_parent_is_refused(
    client: OpenAI, service: Service, chat_file: str, stage1_model: str, extra: dict[str, Any], param: str
) -> None:
    imagebind = layout.manifest(layout.encoder("imagebind"))
    service.store.put_json(imagebind, {"files": {}})
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(model=stage1_model, training_file=chat_file, extra_body=extra)
    service.store.delete(imagebind)
    service.app.state.shop.catalogue._seen.clear()  # it remembers for a minute what it has found
    assert (refused.value.param, refused.value.code) == (param, "parent_mismatch")


def test_a_job_of_another_project_is_not_there(
    client: OpenAI, live: Live, database: str, stage1_model: str, service: Service
) -> None:
    theirs = live.openai(new_project(database).key, max_retries=0)
    ours = client.fine_tuning.jobs.list(limit=1).data[0].id
    for use in (
        lambda: theirs.fine_tuning.jobs.retrieve(ours),
        lambda: theirs.fine_tuning.jobs.cancel(ours),
        lambda: theirs.fine_tuning.jobs.list_events(ours),
        lambda: theirs.fine_tuning.jobs.checkpoints.list(ours),
        lambda: theirs.models.retrieve(stage1_model),
        lambda: theirs.fine_tuning.jobs.create(model=stage1_model, training_file="file-none"),
    ):
        with pytest.raises(openai.NotFoundError):
            use()
    assert theirs.fine_tuning.jobs.list().data == []
    assert stage1_model not in [model.id for model in theirs.models.list()]


def test_a_model_is_shared_with_another_project_of_the_organisation(
    client: OpenAI, live: Live, database: str, stage1_model: str
) -> None:
    tenant = new_project(database, organization_id=ORGANIZATION)
    theirs = live.openai(tenant.key, max_retries=0)
    permissions = client.fine_tuning.checkpoints.permissions
    granted = list(permissions.create(stage1_model, project_ids=[tenant.project_id]))
    assert [permission.project_id for permission in granted] == [tenant.project_id]
    assert [p.id for p in permissions.list(stage1_model)] == [granted[0].id]
    assert theirs.models.retrieve(stage1_model).id == stage1_model
    data = theirs.files.create(file=("chat.jsonl", json_lines([chat_row()])), purpose="fine-tune")
    theirs.files.wait_for_processing(data.id, poll_interval=0.05)
    assert theirs.fine_tuning.jobs.create(model=stage1_model, training_file=data.id).id
    assert permissions.delete(granted[0].id, fine_tuned_model_checkpoint=stage1_model).deleted
    with pytest.raises(openai.NotFoundError):
        theirs.models.retrieve(stage1_model)
    with pytest.raises(openai.BadRequestError, match="in this organization"):
        permissions.create(stage1_model, project_ids=[new_project(database).project_id])


def test_jobs_are_found_by_metadata_and_paged_without_gaps_while_others_come(client: OpenAI, caption_file: str) -> None:
    def make(**metadata: str) -> str:
        return client.fine_tuning.jobs.create(
            model=BASE, training_file=caption_file, metadata=metadata, extra_body=OURS
        ).id

    made = [make(batch="one", number=str(number)) for number in range(5)]
    make(batch="two")
    pages = client.fine_tuning.jobs.list(metadata={"batch": "one"}, limit=2)
    seen = [job.id for job in pages.data]
    make(batch="one")  # newer than the cursor: it must not move what comes after it
    while pages.has_next_page():
        pages = pages.get_next_page()
        seen += [job.id for job in pages.data]
    assert seen == made[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"batch": "one", "number": "3"})] == [made[3]]
    assert all(job.metadata == {} for job in client.fine_tuning.jobs.list(extra_query={"metadata": "null"}))


def test_pause_resume_and_cancel_follow_the_jobs_state(client: OpenAI, caption_file: str) -> None:
    jobs = client.fine_tuning.jobs
    job = jobs.create(model=BASE, training_file=caption_file, extra_body=OURS)
    with pytest.raises(openai.ConflictError, match="not paused"):
        jobs.resume(job.id)
    assert jobs.pause(job.id).pause_requested is True  # type: ignore[attr-defined]
    assert jobs.resume(job.id).pause_requested is False  # type: ignore[attr-defined]
    assert jobs.cancel(job.id).cancel_requested is True  # type: ignore[attr-defined]
    with pytest.raises(openai.ConflictError, match="is being cancelled"):
        jobs.pause(job.id)
    told = [event.message for event in jobs.list_events(job.id, limit=2)]
    assert told[0] == "the job is being cancelled" and told[1] == "the job goes on"


@pytest.mark.anyio
async def test_the_asynchronous_client_takes_the_same_way(live: Live, caption_file: str) -> None:
    async with live.async_openai(API_KEY) as client:
        job = await client.fine_tuning.jobs.create(model=BASE, training_file=caption_file, extra_body=OURS)
        assert (await client.fine_tuning.jobs.retrieve(job.id)).id == job.id
        assert [event.message async for event in client.fine_tuning.jobs.list_events(job.id)] == [
            "the job is queued with the runs compile, stage1"
        ]
        assert (await client.fine_tuning.jobs.cancel(job.id)).id == job.id
        assert job.id in [listed.id async for listed in client.fine_tuning.jobs.list()]


def test_a_checkpoint_can_be_listed_named_and_started_from(
    client: OpenAI, service: Service, database: str, caption_file: str, chat_file: str
) -> None:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=caption_file, extra_body=OURS)
    token = begin_attempt(database, job.id, "stage1")
    for step, kept in ((10, [10]), (20, [10, 20]), (30, [20, 30])):
        report = {
            "step": step,
            "prefix": f"jobs/{job.id}/stage1/checkpoints/step-{step:08d}",
            "metrics": {"step": step, "train_loss": 2.5, "gate_abs_mean": 0.01},
            "kept": kept,
        }
        for _ in range(2):  # its answer was lost, and it is sent again
            answer = service.http.post(
                f"/internal/attempts/{job.id}-stage1-1/checkpoints",
                json=report,
                headers={"authorization": f"Bearer {token}"},
            )
            assert answer.status_code == 204, answer.text
    listed = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [checkpoint.step_number for checkpoint in listed] == [30, 20]
    newest = listed[0]
    assert (newest.metrics.train_loss, newest.metrics.gate_abs_mean) == (2.5, 0.01)  # type: ignore[attr-defined]
    with session_factory(connect(database))() as session:
        expected = checkpoint_name(session.get_one(Job, job.id), "stage1", 30, ORGANIZATION)
    assert newest.fine_tuned_model_checkpoint == expected
    for model, extra in ((expected, {}), (BASE, {"start_from": newest.id})):
        started = client.fine_tuning.jobs.create(model=model, training_file=chat_file, extra_body=extra)
        prefix = started.parent["prefix"]  # type: ignore[attr-defined]
        assert prefix.endswith("step-00000030") and service.store.exists(layout.pin(prefix))
    told = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert told.count("stage1: the checkpoint of step 20 can be used") == 1


def begin_attempt(database: str, job_id: str, kind: str) -> str:
    """Do what the scheduler does when a run starts; returns the attempt's token."""
    with session_factory(connect(database))() as session:
        job = session.get_one(Job, job_id)
        run = next(run for run in job.runs if run.kind == kind)
        run.state = RunState.STARTING
        run.attempts.append(Attempt(id=f"{run.id}-1", project_id=job.project_id, number=1, token="t-" + run.id))
        session.commit()
    return f"t-{job_id}-{kind}"


def test_a_dry_run_estimates_and_creates_nothing(client: OpenAI, service: Service, caption_file: str) -> None:
    put_config(service)
    before = [job.id for job in client.fine_tuning.jobs.list()]
    body = {"model": BASE, "training_file": caption_file, "encoder": ENCODER}
    made: Any = client.post("/fine_tuning/jobs", body=body, cast_to=object, options={"params": {"dry_run": "true"}})
    assert made["object"] == "fine_tuning.job.estimate"
    stage = made["stages"][0]
    assert (stage["stage"], stage["samples"], stage["steps"]) == ("stage1", 3, 1)
    assert stage["memory"]["bytes"] > 0 and stage["memory"]["zero_stage"] in (0, 2)
    assert "no training of its like has succeeded yet" in stage["basis"] or stage["tokens_per_second"]
    assert [job.id for job in client.fine_tuning.jobs.list()] == before
    refused = service.http.post("/v1/fine_tuning/jobs?dry_run=true", json={**body, "training_file": "file-none"})
    assert refused.status_code == 404 and refused.json()["error"]["param"] == "training_file"


def put_config(service: Service) -> None:
    sizes = {
        "num_attention_heads": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "vocab_size": 64,
        "max_position_embeddings": 256,
    }
    service.store.put_json(f"bases/{BASE}/config.json", sizes)


def test_a_model_is_listed_retrieved_and_deleted(client: OpenAI, caption_file: str, database: str) -> None:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=caption_file, extra_body=OURS)
    name = finish(database, job.id)
    assert name in [model.id for model in client.models.list()]
    assert (client.models.retrieve(name).owned_by, client.models.retrieve(BASE).id) == (ORGANIZATION, BASE)
    assert client.models.delete(name).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name)
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.create(model=name, training_file=caption_file)
    with pytest.raises(openai.BadRequestError, match="base model"):
        client.models.delete(BASE)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"method": supervised(n_epochs=0)}, "method.supervised"),
        ({"method": supervised(colour=1)}, "method.supervised"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations.0.type"),
        ({"suffix": "a b"}, "suffix"),
        ({"seed": 2**40}, "seed"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"colour": "red"}, "colour"),
        ({"priority": "urgent"}, "priority"),
        ({"budget": {"gpu_hours": 0}}, "budget.gpu_hours"),
        ({"stages": []}, "stages"),
        ({"start_from": "ftjob-0123"}, "start_from"),
    ],
)
def test_a_wrong_field_is_named(service: Service, caption_file: str, changes: dict[str, Any], param: str) -> None:
    body = {"model": BASE, "training_file": caption_file, "encoder": ENCODER, **changes}
    answer = service.http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == (404 if param == "start_from" else 400), answer.text
    assert answer.json()["error"]["param"].startswith(param)


def test_a_job_is_shown_while_its_file_is_still_checked_and_after_it_failed_of_it(
    client: OpenAI, database: str, service: Service
) -> None:
    file = service.file("waiting.jsonl", captions())
    with session_factory(connect(database))() as session:  # as if its check had not ended, and nobody were at it
        waiting = session.get_one(File, file)
        waiting.status, waiting.claimed_at = "uploaded", datetime.now(UTC) + timedelta(days=1)
        session.commit()
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file, extra_body=OURS)
    assert (job.status, job.training_file, job.validation_file) == ("validating_files", file, None)
    assert client.fine_tuning.jobs.retrieve(job.id) == job
    assert job.id in [listed.id for listed in client.fine_tuning.jobs.list()]
    with session_factory(connect(database))() as session:
        session.get_one(Job, job.id).status = JobStatus.FAILED
        session.get_one(Job, job.id).error = {"code": "invalid_training_file", "message": "row 1", "param": None}
        session.commit()
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.error is not None and failed.error.message == "row 1"
