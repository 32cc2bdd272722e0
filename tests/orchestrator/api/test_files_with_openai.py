"""Files and uploads through OpenAI's own client, sync and async, unmodified."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import openai
import pytest

from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.orchestrator.api.service import Live
from tests.orchestrator.api.tenants import new_project

ROWS = json_lines([chat_row()] * 3)
LARGE = json_lines([chat_row(answer="word " * 1000)] * 2500)
PART_BYTES = 5 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.jsonl"
    path.write_bytes(LARGE)
    return path


def test_a_file_from_upload_to_deletion(live: Live, database: str, file: Path) -> None:
    client = live.openai(new_project(database).key)
    policy = {"anchor": "created_at", "seconds": 3600}
    made = client.files.create(file=file, purpose="fine-tune", expires_after=policy)
    assert (made.filename, made.bytes, made.status) == ("rows.jsonl", len(ROWS), "uploaded")
    assert made.expires_at == made.created_at + 3600
    done = client.files.wait_for_processing(made.id, poll_interval=0.05)
    assert (done.status, done.status_details, done.check["stage"]) == ("processed", None, "stage2")
    assert client.files.content(made.id).content == ROWS
    second = client.files.create(file=("b.jsonl", ROWS), purpose="fine-tune")
    assert [one.id for one in client.files.list(limit=1)] == [second.id, made.id]
    assert [one.id for one in client.files.list(order="asc", purpose="fine-tune")] == [made.id, second.id]
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError) as missing:
        client.files.retrieve(made.id)
    assert missing.value.request_id


def test_a_bad_file_is_waited_for_and_says_what_is_wrong(live: Live) -> None:
    client = live.openai()
    made = client.files.create(file=("bad.jsonl", json_lines([{"messages": []}])), purpose="fine-tune")
    done = client.files.wait_for_processing(made.id, poll_interval=0.05)
    assert done.status == "error"
    assert "1 of 1 rows cannot be used" in str(done.status_details)


@pytest.mark.parametrize("purpose", ["assistants", "batch", "vision", "user_data", "evals"])
def test_purposes_that_nothing_is_done_for_are_refused(live: Live, purpose: str) -> None:
    with pytest.raises(openai.BadRequestError, match="training data is all that this service reads") as refused:
        live.openai().files.create(file=("a.jsonl", ROWS), purpose=purpose)
    assert refused.value.param == "purpose"


def test_a_full_project_is_told_once(live: Live, database: str) -> None:
    client = live.openai(new_project(database, max_storage_bytes=10).key)
    with pytest.raises(openai.RateLimitError, match="delete files, or ask the project's admin") as refused:
        client.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    assert refused.value.type == "insufficient_quota"


def test_a_large_file_in_parts(live: Live, large: Path) -> None:
    client = live.openai()
    md5 = hashlib.md5(LARGE).hexdigest()
    upload = client.uploads.upload_file_chunked(
        file=large, mime_type="text/jsonl", purpose="fine-tune", part_size=PART_BYTES, md5=md5
    )
    assert upload.status == "completed"
    assert upload.file is not None
    done = client.files.wait_for_processing(upload.file.id, poll_interval=0.05)
    assert (done.status, done.bytes, done.rows) == ("processed", len(LARGE), 2500)


def test_an_upload_by_hand(live: Live) -> None:
    client = live.openai()
    upload = client.uploads.create(bytes=len(ROWS), filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    part = client.uploads.parts.create(upload.id, data=ROWS)
    assert (part.object, part.upload_id) == ("upload.part", upload.id)
    with pytest.raises(openai.BadRequestError, match="is no part of upload"):
        client.uploads.complete(upload.id, part_ids=["part-none"])
    assert client.uploads.complete(upload.id, part_ids=[part.id]).status == "completed"
    with pytest.raises(openai.ConflictError):
        client.uploads.cancel(upload.id)
    other = client.uploads.create(bytes=1, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    assert client.uploads.cancel(other.id).status == "cancelled"


def test_all_of_it_without_blocking(live: Live, database: str, large: Path) -> None:
    async def use() -> None:
        async with live.async_openai(new_project(database).key) as client:
            made = await client.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
            done = await client.files.wait_for_processing(made.id, poll_interval=0.05)
            assert (await client.files.retrieve(made.id)).status == done.status == "processed"
            assert (await client.files.content(made.id)).content == ROWS
            upload = await client.uploads.upload_file_chunked(
                file=large, mime_type="text/jsonl", purpose="fine-tune", part_size=PART_BYTES
            )
            assert upload.file is not None
            assert [one.id async for one in client.files.list(limit=1)] == [upload.file.id, made.id]
            assert (await client.files.delete(made.id)).deleted
            begun = await client.uploads.create(bytes=1, filename="a", mime_type="x", purpose="fine-tune")
            part = await client.uploads.parts.create(begun.id, data=b"x")
            assert (await client.uploads.complete(begun.id, part_ids=[part.id])).status == "completed"
            other = await client.uploads.create(bytes=1, filename="a", mime_type="x", purpose="fine-tune")
            assert (await client.uploads.cancel(other.id)).status == "cancelled"

    asyncio.run(use())
