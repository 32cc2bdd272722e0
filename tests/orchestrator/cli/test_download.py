from __future__ import annotations

from pathlib import Path

import pytest
import typer

from orchestrator.cli.download import safe_name
from tests.orchestrator.api.service import Service
from tests.orchestrator.cli.conftest import Ibllm
from tests.orchestrator.client.work import Work

pytestmark = pytest.mark.usefixtures("at")


@pytest.fixture
def done(work: Work, service: Service, tmp_path: Path) -> tuple[str, str]:
    """A job that has made a model and a result file; its id and the model's name."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter.safetensors").write_bytes(b"weights")
    job_id = work.put_job()
    service.store.upload_folder(f"models/{job_id}", folder)
    return job_id, work.succeed(job_id, result_files=[service.file("stage1_metrics.csv")])


def test_a_job_is_downloaded_with_its_metrics_and_its_weights(ibllm: Ibllm, done: tuple[str, str]) -> None:
    job_id, _ = done
    ended = ibllm("download", job_id)
    assert ended.out.splitlines() == [f"{job_id}/stage1_metrics.csv", f"{job_id}/adapter.safetensors"]
    assert Path(job_id, "adapter.safetensors").read_bytes() == b"weights"


def test_a_model_is_downloaded_and_what_is_there_is_not_fetched_again(
    ibllm: Ibllm, done: tuple[str, str], service: Service
) -> None:
    job_id, model = done
    assert ibllm("download", model, "--to", "here").out == "here/adapter.safetensors\n"
    service.store.delete(f"models/{job_id}/adapter.safetensors")
    assert ibllm("download", model, "--to", "here").code == 0
    assert ibllm("download", model).code != 0


def test_a_file_is_downloaded_by_its_name(ibllm: Ibllm, service: Service) -> None:
    file_id = service.file("captions.jsonl")
    assert ibllm("download", file_id).out == "captions.jsonl\n"


def test_nothing_is_overwritten(ibllm: Ibllm, service: Service) -> None:
    Path("captions.jsonl").write_text("mine")
    ended = ibllm("download", service.file("captions.jsonl"))
    assert ended.code == 2 and "is there already" in ended.err
    assert Path("captions.jsonl").read_text() == "mine"


def test_a_job_without_results_says_so(ibllm: Ibllm, work: Work) -> None:
    ended = ibllm("download", work.put_job())
    assert ended.code == 0 and "has no results yet" in ended.err and ended.out == ""


@pytest.mark.parametrize("what", ["ftjob-none", "file-none", "ft:none", "no such thing"])
def test_what_is_not_there_is_not_found(ibllm: Ibllm, what: str) -> None:
    assert ibllm("download", what).code == 5


@pytest.mark.parametrize(("name", "safe"), [("a.csv", "a.csv"), ("../../a.csv", "a.csv"), ("/etc/passwd", "passwd")])
def test_a_name_from_anybody_stays_in_the_folder(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["", "..", "a/..", ".", "a\x1b[2J", "a\nb"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(typer.BadParameter):
        safe_name(name)
