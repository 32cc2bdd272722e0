"""The whole way of a job, seen from outside: HTTP, S3, MLflow, the command line."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import pytest
import torch
from mlflow import MlflowClient

from ibllm_core.bases.load import weights_sha256
from orchestrator.client import ConflictError
from tests.end_to_end.conftest import Embedded
from tests.ibllm_core.bases import files

pytestmark = pytest.mark.usefixtures("demo")
WAIT_SECONDS = 90.0


def until(condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> None:
    """Wait for a condition, looking four times a second."""
    pause = threading.Event()
    for _ in range(int(seconds * 4)):
        if condition():
            return
        pause.wait(0.25)
    raise AssertionError(f"it did not come true within {seconds:.0f} s")


@pytest.fixture
def report(embedded: Embedded) -> dict[str, Any]:
    return dict(json.loads((embedded.stack.home.root / "demo/report.json").read_text()))


@pytest.fixture
def job(embedded: Embedded, report: dict[str, Any]) -> dict[str, Any]:
    return embedded.client.jobs.retrieve(report["job_id"]).model_dump(mode="json")


@pytest.fixture
def s3(embedded: Embedded) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=embedded.environment["IBLLM_S3_ENDPOINT"],
        aws_access_key_id=embedded.environment["IBLLM_S3_ACCESS_KEY"],
        aws_secret_access_key=embedded.environment["IBLLM_S3_SECRET_KEY"],
        region_name="us-east-1",
    )


def test_the_report_tells_of_two_deepspeed_workers_and_frozen_weights(
    report: dict[str, Any], demo: subprocess.CompletedProcess[str]
) -> None:
    assert (report["world_size"], report["zero_stage"]) == (2, 2)
    assert report["frozen"]["unchanged"] is True
    assert set(report["frozen"]["groups"]["stage2"]) == {"llama", "bind_network"}
    assert report["gates"]["abs_mean_first"] == 0
    assert report["gates"]["abs_mean_last"] > 0
    assert report["stage2"]["vqa_questions"] == 24
    assert report["stage1"]["eval_loss"] < report["stage1"]["eval_loss_before"]
    assert "frozen weights" in demo.stdout and report["job_id"] in demo.stdout


def test_the_page_holds_every_picture_and_chart(embedded: Embedded) -> None:
    page = (embedded.stack.home.root / "demo/report.html").read_text()
    assert page.count("<svg") == 4
    assert page.count("data:image/png;base64,") == 12
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://127.0.0.1", "")


def test_the_job_shows_its_runs_and_its_story(embedded: Embedded, job: dict[str, Any]) -> None:
    assert job["status"] == "succeeded"
    assert [run["kind"] for run in job["runs"]] == ["compile", "stage1", "stage2", "evaluate"]
    assert {run["reason"] for run in job["runs"]} == {"succeeded"}
    told = [event.message for event in embedded.client.jobs.events(job["id"])]
    assert told[-1].startswith("the job is queued") and told[0].startswith("the job succeeded")


def test_mlflow_has_both_stages_with_gates_from_zero(embedded: Embedded, report: dict[str, Any]) -> None:
    client = MlflowClient(embedded.environment["IBLLM_MLFLOW_URL"])
    for kind in ("stage1", "stage2"):
        run = client.get_run(report["mlflow_run_ids"][kind])
        assert run.info.status == "FINISHED"
        assert run.data.tags["ibllm.job_id"] == report["job_id"]
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps == sorted(set(steps)) and len(steps) > 1
    first = client.get_metric_history(report["mlflow_run_ids"]["stage1"], "gate/layer_07/abs_mean")
    assert first[0].value == 0 < first[-1].value


def test_the_model_is_registered_with_its_weights_in_s3_by_hash(
    embedded: Embedded, s3: Any, report: dict[str, Any]
) -> None:
    version = MlflowClient(embedded.environment["IBLLM_MLFLOW_URL"]).get_model_version_by_alias(
        "smollm2-135m-instruct.demo", "newest"
    )
    assert version.tags["ibllm.job_id"] == report["job_id"]
    bucket, _, prefix = version.source.removeprefix("s3://").partition("/")
    body = s3.get_object(Bucket=bucket, Key=f"{prefix}/adapter.safetensors")["Body"].read()
    assert hashlib.sha256(body).hexdigest() == version.tags["ibllm.sha256"]
    listed = embedded.client.models.list().data
    assert [model.job_id for model in listed if model.id == report["model"]] == [report["job_id"]]
    assert report["job_id"] in embedded.command("models").stdout


def test_s3_holds_spec_log_checkpoint_and_report_of_the_job(s3: Any, report: dict[str, Any]) -> None:
    bucket, _, prefix = report["s3_prefix"].removeprefix("s3://").partition("/")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    for ending in (
        "stage1/attempts/1/spec.json",
        "stage1/attempts/1/logs/driver.log",
        "evaluate/report/evaluation.json",
    ):
        assert f"{prefix}/{ending}" in keys
    manifests = [key for key in keys if "/checkpoints/" in key and key.endswith("MANIFEST.json")]
    assert {key.removeprefix(f"{prefix}/").partition("/")[0] for key in manifests} == {"stage1", "stage2"}
    files = json.loads(s3.get_object(Bucket=bucket, Key=manifests[0])["Body"].read())["files"]
    stems = {re.sub(r"(-\d+-of-\d+)?\.safetensors$", "", name) for name in files}  # several ranks write large ones
    assert stems == {"trainable", "optimizer", "state.json", "history.jsonl"}


def test_a_fusion_without_gates_takes_the_same_way(embedded: Embedded) -> None:
    """Tokens before the text, in the same trainer, checkpoints, generation and reports."""
    result = embedded.command("demo", "--small", "--fusion", "concat")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    folder = embedded.stack.home.root / "demo-concat"
    report = json.loads((folder / "report.json").read_text())
    assert (report["fusion"], report["gates"]) == ("concat", None)
    assert report["trained"]["stage1"].keys() == {"bind_network", "queries"}
    assert report["trained"]["stage1"]["queries"]["drift"] > 0
    assert report["stage1"]["eval_loss"] != report["stage1"]["eval_loss_shuffled"]  # the tokens reach the words
    assert (folder / "report.html").read_text().count("<svg") == 3


def test_metas_folder_becomes_a_base_with_the_hash_of_its_weights(embedded: Embedded, s3: Any, tmp_path: Path) -> None:
    llama = files.tiny_llama("plain", torch.float16)
    folder = files.write_meta(llama, tmp_path / "meta", num_shards=2)
    files.write_pieces(folder)
    result = embedded.command("import-base", "tiny-meta", str(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    bucket = embedded.environment["IBLLM_S3_BUCKET"]
    manifest = json.loads(s3.get_object(Bucket=bucket, Key="bases/tiny-meta/MANIFEST.json")["Body"].read())
    assert manifest["weights_sha256"] == weights_sha256(folder)
    assert "model.safetensors.index.json" in manifest["files"] or "model.safetensors" in manifest["files"]


def test_a_job_larger_than_the_cluster_waits_says_why_and_can_be_cancelled(
    embedded: Embedded, job: dict[str, Any]
) -> None:
    request = {**job["request"], "resources": {"workers": 64}}
    jobs = embedded.client.jobs
    made = jobs.submit(request, idempotency_key="too-large").id
    assert jobs.submit(request, idempotency_key="too-large").id == made
    until(lambda: jobs.retrieve(made).runs[0].waiting)
    waiting = jobs.retrieve(made).runs[0].waiting
    assert waiting is not None and waiting.code == "cluster_too_small"
    assert "needs 64 workers of 1 CPU" in waiting.message
    until(lambda: made in embedded.command("cluster").stdout)
    jobs.cancel(made)
    until(lambda: jobs.retrieve(made).status == "cancelled")
    with pytest.raises(ConflictError, match="is cancelled and cannot be cancelled"):
        jobs.cancel(made)


def test_a_run_that_fails_names_itself_and_its_reason(embedded: Embedded, job: dict[str, Any]) -> None:
    stages = [dict(stage) for stage in job["request"]["stages"]]
    stages[0]["hyperparameters"] = {**stages[0]["hyperparameters"], "row_tokens": 16}
    ended = failed(embedded, {**job["request"], "stages": stages})
    assert ended["error"]["message"].startswith("compile failed (user_error)")
    assert "shorten it or raise hyperparameters.row_tokens" in ended["error"]["message"]
    assert [run["reason"] for run in ended["runs"]] == ["user_error", *["parent_failed"] * 3]


def failed(embedded: Embedded, request: dict[str, Any]) -> dict[str, Any]:
    """A job that has failed."""
    jobs = embedded.client.jobs
    made = jobs.submit(request).id
    until(lambda: jobs.retrieve(made).status == "failed", seconds=180)
    return jobs.retrieve(made).model_dump(mode="json")


def test_what_a_training_worker_raises_reaches_the_user(embedded: Embedded, job: dict[str, Any]) -> None:
    """Through DeepSpeed, Ray Train and the driver: a divergence is named with its step, and is not tried again."""
    stages = [dict(stage) for stage in job["request"]["stages"]]
    stages[0]["hyperparameters"] = {**stages[0]["hyperparameters"], "learning_rate": 1e30, "gradient_clip": 1e9}
    ended = failed(embedded, {**job["request"], "stages": stages})
    assert ended["error"]["message"].startswith("stage1 failed (user_error): the gradients of steps")
    assert ended["runs"][1]["attempts"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/fine_tuning/jobs", {"model": "x"}, 400, "training_file is missing"),
        ("/fine_tuning/jobs/ftjob-none", None, 404, "there is no job"),
        ("/files/file-none", None, 404, "upload it with POST /v1/files"),
        ("/nothing", None, 404, "see /docs"),
    ],
)
def test_errors_have_openais_shape_and_a_remedy(
    embedded: Embedded, path: str, body: dict[str, Any] | None, status: int, words: str
) -> None:
    method = "GET" if body is None else "POST"
    headers = {"authorization": f"Bearer {embedded.environment['IBLLM_API_KEY']}"}
    url = f"{embedded.environment['IBLLM_SERVICE_URL']}/v1{path}"
    answer = httpx.request(method, url, json=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert words in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"]
    assert httpx.request(method, url, json=body).status_code in (401, 404)


def test_every_part_listens_on_loopback_alone(embedded: Embedded) -> None:
    pids = {process.pid for process in embedded.processes()}
    listening = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in pids]
    assert len(listening) > 6
    assert {c.laddr[0] for c in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_a_part_that_dies_is_restarted(embedded: Embedded) -> None:
    before = {part.name: part.pid for part in embedded.stack.status()}
    assert before["api"] is not None
    psutil.Process(before["api"]).kill()

    def is_back() -> bool:
        part = next(part for part in embedded.stack.status() if part.name == "api")
        return part.healthy and part.pid != before["api"]

    until(is_back)


def test_down_leaves_no_process_and_up_resumes_with_all_data(embedded: Embedded, report: dict[str, Any]) -> None:
    assert embedded.command("down").returncode == 0
    assert embedded.processes() == []
    assert embedded.command("models").returncode == 3
    assert embedded.command("up").returncode == 0
    shown = embedded.command("status")
    assert shown.returncode == 0 and shown.stdout.count(" healthy") == 7
    assert report["job_id"] in embedded.command("ls").stdout
    assert report["model"] in embedded.command("models").stdout


def test_a_killed_supervisor_leaves_no_orphan(embedded: Embedded) -> None:
    pid = int((embedded.stack.home.root / "supervisord.pid").read_text())
    psutil.Process(pid).kill()
    until(lambda: embedded.processes() == [])
    assert embedded.command("up").returncode == 0
