from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from tests.orchestrator.api.service import BASE, ENCODER, Service
from tests.orchestrator.api.test_openai_jobs import captions, put_config
from tests.orchestrator.cli.conftest import Ibllm
from tests.orchestrator.client.work import Work

pytestmark = pytest.mark.usefixtures("at")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A job on two files of one content, beside it in another folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("captions.jsonl", "again.jsonl"):
        (folder / name).write_bytes(captions(4))
    path = folder / "job.yaml"
    path.write_text(
        f"model: {BASE}\nencoder: {ENCODER}\ntraining_file: captions.jsonl\nvalidation_file: again.jsonl\n"
        "method: {type: supervised, supervised: {hyperparameters: {learning_rate: 5e-4}}}\n"
    )
    return path


def test_a_spec_is_submitted_with_its_data_which_is_uploaded_once(ibllm: Ibllm, spec: Path, client: Client) -> None:
    before = len(list(client.files.list()))
    ended = ibllm("submit", spec, "--suffix", "mine", "--n-epochs", "2", "--metadata", "team=vision")
    assert ended.code == 0, ended.err
    job = client.jobs.retrieve(ended.out.strip())
    stage: Any = job.request.stages and job.request.stages[0]
    assert (stage.hyperparameters.n_epochs, stage.hyperparameters.learning_rate) == (2, 5e-4)
    assert stage.training_file == stage.validation_file == job.training_file
    assert (job.request.suffix, job.metadata) == ("mine", {"team": "vision"})
    assert len(list(client.files.list())) == before + 1
    assert f"ibllm watch {job.id}" in ended.err


def test_flags_are_enough(ibllm: Ibllm, spec: Path, client: Client) -> None:
    words = ("--model", BASE, "--encoder", ENCODER, "--training-file", "elsewhere/captions.jsonl", "--json")
    ended = ibllm("submit", *words, "--workers", "3", "--priority", "high", "--budget", "2.5")
    job = client.jobs.retrieve(ended.json["id"])
    assert (job.request.resources.workers, job.priority) == (3, "high")
    assert job.budget is not None and job.budget.gpu_hours == 2.5


def test_a_dry_run_tells_what_it_would_take(ibllm: Ibllm, spec: Path, client: Client, service: Service) -> None:
    put_config(service)
    before = next(client.jobs.list()).id
    ended = ibllm("submit", spec, "--dry-run")
    assert ended.code == 0, ended.err
    assert "stage1" in ended.out and "ZeRO" in ended.out and "starts" in ended.out
    assert ibllm("submit", spec, "--dry-run", "--json").json["object"] == "fine_tuning.job.estimate"
    assert next(client.jobs.list()).id == before


def test_a_wrong_spec_is_refused_before_anything_is_sent(ibllm: Ibllm, spec: Path, client: Client) -> None:
    before = len(list(client.files.list()))
    spec.write_text(spec.read_text() + "priority: urgent\nseed: -3\n")
    ended = ibllm("submit", spec)
    assert ended.code == 2 and ended.out == ""
    assert f"{spec}: priority: " in ended.err and f"{spec}: seed: " in ended.err
    assert len(list(client.files.list())) == before


def test_what_the_service_refuses_is_told_in_its_words(ibllm: Ibllm, spec: Path) -> None:
    ended = ibllm("submit", "--model", BASE, "--encoder", ENCODER, "--training-file", "file-0abc")
    assert ended.code == 5 and "'file-0abc'" in ended.err
    ended = ibllm("submit", spec, "--model", "none")
    assert ended.code == 1 and "there is no base model 'none'" in ended.err


def test_data_that_a_job_would_refuse_is_not_submitted(ibllm: Ibllm, spec: Path, client: Client) -> None:
    (spec.parent / "captions.jsonl").write_text('{"nothing": 1}\n')
    before = next(client.jobs.list()).id
    ended = ibllm("submit", spec)
    assert ended.code == 1 and "captions.jsonl (file-" in ended.err
    assert next(client.jobs.list()).id == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a spec, or --model and --training-file"),
        (("--model", BASE), "training_file is missing"),
        (("none.yaml",), "none.yaml cannot be read"),
        (("--model", BASE, "--training-file", "f", "--metadata", "x"), "write key=value"),
        (("--model", BASE, "--training-file", "f", "--budget", "nan"), "budget.gpu_hours"),
        (("--model", BASE, "--workers", "0"), "--workers"),
        (("--model", BASE, "--priority", "urgent"), "--priority"),
    ],
)
def test_wrong_words_are_usage_errors(ibllm: Ibllm, words: tuple[str, ...], said: str) -> None:
    ended = ibllm("submit", *words)
    assert ended.code == 2 and said in ended.err


@pytest.mark.parametrize(
    ("luck", "code", "words"), [("bad", 1, "failed: out of luck"), ("good", 0, "succeeded: ft:tiny")]
)
def test_a_job_that_is_watched_ends_as_the_job_does(
    ibllm: Ibllm, spec: Path, work: Work, client: Client, luck: str, code: int, words: str
) -> None:
    def end() -> None:
        while not (job := next(client.jobs.list(metadata={"luck": luck}), None)):
            time.sleep(0.02)  # between two looks at the condition
        work.fail(job.id, "out of luck") if luck == "bad" else work.succeed(job.id)

    with ThreadPoolExecutor() as pool:
        pool.submit(end)
        ended = ibllm("submit", spec, "--watch", "--metadata", f"luck={luck}")
    assert ended.code == code and words in ended.err
    assert ended.out.startswith("ftjob-") and len(ended.out.splitlines()) == 1
