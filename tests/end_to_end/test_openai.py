"""A user of OpenAI's client on the embedded stack: data, a job with a pause, a second one from its model, a chat."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from PIL import Image

from orchestrator.demo import data, packages
from orchestrator.demo.run import BASE
from tests.end_to_end.conftest import Embedded

pytestmark = pytest.mark.usefixtures("demo")
FINAL = ("succeeded", "failed", "cancelled")
WAIT_SECONDS = 240.0
SIZE = data.Size(
    stamps=16, held_out_captions=4, shape_pictures=8, questions=16, held_out_pictures=4, held_out_questions=4
)
SETTINGS = {"row_tokens": 128, "max_steps": 40, "n_epochs": 100}


@pytest.fixture(scope="module")
def client(embedded: Embedded) -> Iterator[OpenAI]:
    http = openai.DefaultHttpxClient(trust_env=False)
    url, key = embedded.environment["IBLLM_SERVICE_URL"], embedded.environment["IBLLM_API_KEY"]
    with OpenAI(base_url=f"{url}/v1", api_key=key, http_client=http) as client:
        yield client


@pytest.fixture(scope="module")
def files(client: OpenAI, embedded: Embedded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids of uploaded captions and questions, checked."""
    chosen = data.choose(packages.fetch(embedded.stack.home.root / "packages"), SIZE)
    folder = tmp_path_factory.mktemp("data")
    made = {}
    for name in ("captions", "questions"):
        path = folder / f"{name}.jsonl"
        data.write_jsonl(path, getattr(chosen, name))
        uploaded = client.files.create(file=path, purpose="fine-tune")
        checked = client.files.wait_for_processing(uploaded.id, poll_interval=0.2)
        assert checked.status == "processed", checked.status_details
        made[name] = checked.id
    return made


@pytest.fixture(scope="module")
def first(client: OpenAI, files: dict[str, str]) -> FineTuningJob:
    """A stage-1 job that was paused while it trained, resumed, and has succeeded."""
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=files["captions"],
        suffix="sdk",
        method={"type": "supervised", "supervised": {"hyperparameters": SETTINGS}},  # type: ignore[typeddict-item]
        extra_body={"resources": {"workers": 1}},
    )
    until(client, job.id, lambda seen: any(run["progress"] and run["progress"]["step"] > 2 for run in seen.runs))
    client.fine_tuning.jobs.pause(job.id)
    paused = until(client, job.id, lambda seen: seen.status == "paused")
    assert [run["state"] for run in paused.runs] == ["done", "pending"]  # type: ignore[attr-defined]
    client.fine_tuning.jobs.resume(job.id)
    return until(client, job.id, lambda seen: seen.status in FINAL)


def until(client: OpenAI, job_id: str, condition: Callable[[FineTuningJob], object]) -> FineTuningJob:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition(job := client.fine_tuning.jobs.retrieve(job_id)):
        assert job.status not in ("failed", "cancelled"), job.error
        assert time.monotonic() < deadline, job
        time.sleep(0.25)  # between two looks at the condition
    return job


def test_a_paused_job_goes_on_from_its_step_and_succeeds(client: OpenAI, first: FineTuningJob) -> None:
    assert first.status == "succeeded" and first.fine_tuned_model
    assert first.fine_tuned_model.startswith(f"ft:{BASE}:default:sdk:")
    assert first.runs[1]["attempts"] == 2  # type: ignore[attr-defined]
    content = client.files.content(first.result_files[-1]).text.splitlines()
    steps = [int(float(line.split(",")[0])) for line in content[1:]]
    assert content[0].startswith("step,") and steps == sorted(set(steps)) and steps[-1] == SETTINGS["max_steps"]


def test_events_and_checkpoints_carry_the_gates(client: OpenAI, first: FineTuningJob) -> None:
    told = list(client.fine_tuning.jobs.list_events(first.id, limit=50))
    metrics = [event.data for event in told if event.type == "metrics"]
    assert metrics and all("gate_abs_mean" in data for data in metrics)  # type: ignore[operator]
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(first.id))
    assert checkpoints[0].step_number == SETTINGS["max_steps"]
    assert checkpoints[0].metrics.gate_abs_mean > 0  # type: ignore[attr-defined]


def test_logs_of_both_attempts_are_kept(client: OpenAI, first: FineTuningJob) -> None:
    paused, resumed = (
        client.get(f"/fine_tuning/jobs/{first.id}/logs/stage1?attempt={attempt}", cast_to=str) for attempt in (1, 2)
    )
    assert "which is saved" in paused and "saved step" in resumed


def test_live_events_end_with_the_job(client: OpenAI, first: FineTuningJob) -> None:
    with client._client.stream(
        "GET", f"{client.base_url}fine_tuning/jobs/{first.id}/events?stream=true", headers=client.auth_headers
    ) as answer:
        lines = list(answer.iter_lines())
    assert [line for line in lines if line][-1] == "data: [DONE]"
    messages = [json.loads(line[6:])["message"] for line in lines if line.startswith("data: {")]
    assert messages[0].startswith("the job is queued") and messages[-1].startswith("the job succeeded")


def test_the_model_chats_about_a_picture_and_streams(client: OpenAI, first: FineTuningJob, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    picture = base64.b64encode((tmp_path / "red.png").read_bytes()).decode()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
    ]
    ask = {"model": first.fine_tuned_model, "messages": [{"role": "user", "content": content}], "max_tokens": 6}
    whole = client.chat.completions.create(**ask)  # type: ignore[call-overload]
    assert whole.usage.completion_tokens <= 6
    chunks = list(client.chat.completions.create(**ask, stream=True))  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        whole.choices[0].message.content
    )


def test_a_second_job_starts_from_the_first_ones_model(
    client: OpenAI, first: FineTuningJob, files: dict[str, str]
) -> None:
    job = client.fine_tuning.jobs.create(
        model=str(first.fine_tuned_model),
        training_file=files["questions"],
        method={"type": "supervised", "supervised": {"hyperparameters": {**SETTINGS, "max_steps": 2}}},  # type: ignore[typeddict-item]
        extra_body={"resources": {"workers": 1}},
    )
    ended = until(client, job.id, lambda seen: seen.status in FINAL)
    assert ended.status == "succeeded" and ended.model == BASE
    assert ended.parent["name"] == first.fine_tuned_model  # type: ignore[attr-defined]
    assert ended.runs[1]["kind"] == "stage2"  # type: ignore[attr-defined]
    assert ended.fine_tuned_model in [model.id for model in client.models.list()]
