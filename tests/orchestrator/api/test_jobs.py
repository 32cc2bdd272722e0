"""A job is refused at once where it names what is not there, not allowed or not good enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ibllm_core.contract import layout
from orchestrator.db.models import File
from orchestrator.db.session import connect, session_factory
from orchestrator.tenants.bootstrap import DEFAULT_PROJECT
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.ibllm_core.formats.object_store import PEOPLE, RunningStore
from tests.orchestrator.api.service import Service, error_of, settings_of, start

GOOD, BAD = chat_row(), {"messages": []}


def rows(good: int, bad: int) -> bytes:
    return json_lines([*[GOOD] * good, *[BAD] * bad])


@pytest.fixture
def one_machine(
    service: Service, database: str, running: RunningStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """The same service, allowed to read the files of its machine."""
    for key, value in settings_of(database, running).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("IBLLM_LOCAL_DATA", "true")
    local = start(running)
    with local.http:
        yield local


def test_a_job_on_good_uploads_is_queued_with_its_runs(service: Service) -> None:
    mix = [{"file": service.file(), "weight": 0.5}]
    job = service.create_job({"validation_file": service.file(), "mix": mix}).json()
    assert (job["status"], job["error"]) == ("queued", None)
    assert [run["kind"] for run in job["runs"]] == ["compile", "stage1", "stage2", "evaluate"]
    assert job["request"]["stages"][0]["mix"] == mix


def test_data_in_a_bucket_of_the_users_own_is_taken(service: Service) -> None:
    service.running.put("sets/cats.jsonl", json_lines([GOOD]))
    for location in (f"s3://{PEOPLE}/sets/cats.jsonl", f"s3://{PEOPLE}/sets"):
        assert service.create_job(location).status_code == 200


FIELDS = {
    "training_file": lambda location: {"training_file": location},
    "validation_file": lambda location: {"validation_file": location},
    "mix.0": lambda location: {"mix": [{"file": location}]},
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("s3://ibllm/files/file-1/content", "is the service's own bucket and holds everybody's files"),
        ("s3://ibllm", "is the service's own bucket"),
        (f"s3://{PEOPLE}/none.jsonl", "none.jsonl"),
        ("/etc/passwd", "this service reads no files of its machines: upload the file"),
    ],
)
def test_a_place_that_must_not_be_read_is_refused_whichever_field_names_it(
    service: Service, field: str, location: str, problem: str
) -> None:
    error = error_of(service.create_job(FIELDS[field](location)))
    assert error["param"] == f"stages.0.{field}"
    assert problem in error["message"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("location", ["file-none", "https://example.com/rows.jsonl", "rows.jsonl", "../rows.jsonl"])
def test_an_unknown_location_is_refused_whichever_field_names_it(service: Service, field: str, location: str) -> None:
    error = error_of(service.create_job(FIELDS[field](location)), 404)
    assert error["param"] == f"stages.0.{field}"
    assert error["message"] == f"there is no file {location!r}: upload it with POST /v1/files"


@pytest.mark.parametrize("field", FIELDS)
def test_a_bad_file_is_refused_whichever_field_names_it(service: Service, field: str) -> None:
    file = service.file(content=rows(good=6, bad=4))
    error = error_of(service.create_job(FIELDS[field](file)))
    assert error["param"] == f"stages.0.{field}"
    assert f"{file} cannot be trained on: 4 of 10 rows are bad, more than data.max_bad_share 0.01" in error["message"]
    assert "row 7: " in error["message"]


@pytest.mark.parametrize(
    ("content", "max_bad_share", "is_taken"),
    [
        (rows(good=6, bad=4), 0.39, False),
        (rows(good=6, bad=4), 0.4, True),
        (rows(good=199, bad=1), 0.01, True),
        (rows(good=199, bad=1), 0.001, False),
        (rows(good=0, bad=3), 1.0, False),
        (b"\x1f\x8b", 1.0, False),
    ],
)
def test_how_many_bad_rows_are_borne_is_the_jobs_word(
    service: Service, content: bytes, max_bad_share: float, is_taken: bool
) -> None:
    answer = service.create_job(service.file(content=content), data={"max_bad_share": max_bad_share})
    if is_taken:
        assert answer.status_code == 200, answer.text
    else:
        assert "cannot be trained on: " in error_of(answer)["message"]


def test_a_result_file_is_no_training_data(service: Service, database: str) -> None:
    add_file(database, id="file-result", purpose="fine-tune-results")
    message = error_of(service.create_job("file-result"))["message"]
    assert "it was made for fine-tune-results" in message


def test_a_file_from_before_rows_were_counted_counts_by_its_status(service: Service, database: str) -> None:
    add_file(database, id="file-old")
    add_file(database, id="file-old-bad", status="error", status_details="row 1: has no messages")
    assert service.create_job("file-old").status_code == 200
    assert "row 1: has no messages" in error_of(service.create_job("file-old-bad"))["message"]


def add_file(database: str, **changes: Any) -> None:
    """A file that no upload of this version makes."""
    values = {
        "project_id": DEFAULT_PROJECT,
        "key": "none",
        "filename": "x",
        "purpose": "fine-tune",
        "bytes": 1,
        "sha256": "",
        "status": "processed",
    }
    engine = connect(database)
    with session_factory(engine)() as session:
        session.add(File(**{**values, **changes}))
        session.commit()
    engine.dispose()


def test_imagebind_asks_for_its_weights_until_they_are_there(service: Service) -> None:
    file = service.file()
    error = error_of(service.create_job(file, encoder="imagebind"))
    assert (error["param"], error["code"]) == ("encoder", "encoder_not_found")
    assert "bring them in with `ibllm import-encoder imagebind imagebind_huge.pth`" in error["message"]
    manifest = layout.manifest(layout.encoder("imagebind"))
    service.store.put_json(manifest, {"files": {}})
    assert service.create_job(file, encoder="imagebind").status_code == 200
    service.store.delete(manifest)


@pytest.mark.parametrize("model", ["none", "", "../files", "/etc", "ft"])
def test_an_unknown_base_is_refused(service: Service, model: str) -> None:
    error = error_of(service.create_job(service.file(), model=model))
    assert (error["param"], error["code"]) == ("model", "model_not_found")


@pytest.mark.parametrize("words", ["a\0b", "\ud800"])
def test_what_no_database_can_store_is_refused(service: Service, words: str) -> None:
    for request in (service.create_job(words), service.create_job(service.file(), metadata={"note": words})):
        assert "holds a NUL character or half a surrogate pair: remove it" in error_of(request)["message"]
    error_of(service.http.get("/v1/files/a%00b"))


def test_an_unknown_template_is_refused_with_those_there_are(service: Service) -> None:
    error = error_of(service.create_job({"template": "none"}))
    assert error["param"] == "stages.0.template"
    assert "must be one of alpaca, short, caption, chat, but is 'none'" in error["message"]


def test_a_service_on_one_machine_takes_paths(one_machine: Service, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(json_lines([GOOD]))
    for location in (tmp_path / "rows.jsonl", tmp_path):
        assert one_machine.create_job(str(location)).status_code == 200
    error = error_of(one_machine.create_job(str(tmp_path / "none.jsonl")))
    assert "there is no file or folder" in error["message"]
