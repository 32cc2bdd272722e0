"""Files and weights on their way to the service and back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from orchestrator.client import Client, FileRefusedError, InvalidRequestError, NotFoundError, NotReachableError
from orchestrator.client.files import WHOLE_BYTES
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.orchestrator.api.service import BASE, Service
from tests.orchestrator.client.scripted import Answer, ScriptedServer, as_json
from tests.orchestrator.client.work import Work

HELD = {
    "id": "file-1",
    "bytes": 10,
    "created_at": 1,
    "expires_at": None,
    "filename": "f",
    "purpose": "fine-tune",
    "status": "processed",
    "status_details": None,
    "rows": None,
    "sha256": hashlib.sha256(b"0123456789").hexdigest(),
    "check": None,
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json_lines([chat_row(), chat_row("where?", "there")]))
    return path


def test_a_file_is_uploaded_checked_listed_downloaded_and_deleted(client: Client, rows: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    sent = client.files.upload(
        rows, base=BASE, expires_in_seconds=7200, progress=lambda done, total: told.append((done, total))
    )
    file = client.files.wait_for_processing(sent.id)
    assert (file.status, file.rows, file.filename) == ("processed", 2, "rows.jsonl")
    assert file.expires_at == file.created_at + 7200
    assert file.check is not None and file.check.tokens is not None
    size = rows.stat().st_size
    assert told == [(size, size)]
    assert file.id in [one.id for one in client.files.list(purpose="fine-tune")]
    back = client.files.download(file.id, tmp_path / "new/folder/back.jsonl")
    assert back.read_bytes() == rows.read_bytes() == client.files.content(file.id)
    assert client.files.delete(file.id).deleted
    with pytest.raises(NotFoundError):
        client.files.retrieve(file.id)


def test_a_file_that_a_job_would_refuse_is_refused_with_its_bad_rows(client: Client, rows: Path) -> None:
    rows.write_text('{"messages": 3}\n')
    with pytest.raises(FileRefusedError, match=r"rows.jsonl \(file-.*messages"):
        client.files.wait_for_processing(client.files.upload(rows).id)


def test_a_check_that_does_not_end_is_not_waited_for_for_ever(scripted: ScriptedServer) -> None:
    scripted.will_answer(as_json({**HELD, "status": "uploaded"}))
    with Client(scripted.url, "k") as client, pytest.raises(NotReachableError, match="wait for longer"):
        client.files.wait_for_processing("file-1", timeout=0.2)


def test_a_large_file_comes_in_parts_and_is_whole(client: Client, tmp_path: Path) -> None:
    path, row = tmp_path / "large.jsonl", json.dumps(chat_row("x" * 4000))
    with path.open("w") as file:
        for number in range(WHOLE_BYTES // len(row) + 100):
            file.write(row.replace("xxxxxxxx", f"{number:08}", 1) + "\n")
    told: list[int] = []
    sent = client.files.upload(path, progress=lambda done, _: told.append(done))
    assert told == [WHOLE_BYTES, path.stat().st_size]
    checked = client.files.wait_for_processing(sent.id)
    with path.open("rb") as file:
        assert checked.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
    client.files.delete(sent.id)


def test_an_upload_that_fails_in_the_middle_is_cancelled(scripted: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(WHOLE_BYTES + 1)
    upload = {"id": "upload-1", "bytes": 1, "created_at": 1, "expires_at": 1, "filename": "f", "purpose": "fine-tune"}
    begun = as_json({**upload, "status": "pending", "file": None})
    scripted.will_answer(begun, as_json({"error": {"message": "announced otherwise"}}, 400), begun)
    with Client(scripted.url, "k") as client, pytest.raises(InvalidRequestError, match="announced otherwise"):
        client.files.upload(path)
    assert [request.path for request in scripted.requests] == [
        "/v1/uploads",
        "/v1/uploads/upload-1/parts",
        "/v1/uploads/upload-1/cancel",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Answer(body=b"01234", breaks_after=True), "broke the connection off"),
        (Answer(body=b"01234"), "did not arrive as it was sent"),
        (Answer(body=b"0123456780"), "did not arrive as it was sent"),
    ],
)
def test_a_download_that_goes_wrong_leaves_no_file(
    scripted: ScriptedServer, tmp_path: Path, content: Answer, words: str
) -> None:
    scripted.will_answer(as_json(HELD), content)
    with Client(scripted.url, "k", max_retries=0) as client, pytest.raises(NotReachableError, match=words):
        client.files.download("file-1", tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_the_weights_of_a_model_are_downloaded_and_checked(
    client: Client, work: Work, service: Service, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter.safetensors").write_bytes(b"weights")
    job_id = work.put_job()
    service.store.upload_folder(f"models/{job_id}", folder)
    model = work.succeed(job_id)
    assert client.models.retrieve(model).job_id == job_id
    assert [listed.id for listed in client.models.list().data if listed.job_id == job_id] == [model]
    [file] = client.models.files(model)
    assert client.models.download(model, file, tmp_path / "here").read_bytes() == b"weights"
    assert client.models.delete(model).deleted
    with pytest.raises(NotFoundError):
        client.models.files(model)
