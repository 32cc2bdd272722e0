"""A large file comes in parts, and is put together without coming again."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import select

from ibllm_core.contract import layout
from ibllm_core.storage import MIN_PART_BYTES, ObjectStore
from orchestrator.api import uploads
from orchestrator.api.uploads import COMPLETIONS_AT_ONCE, MAX_PART_BYTES
from orchestrator.db.models import AuditEntry, Upload
from tests.ibllm_core.formats.files import chat_row, json_lines
from tests.orchestrator.api.service import BASE, Service, error_of
from tests.orchestrator.api.tenants import new_project

ROWS = json_lines([chat_row()])


def begin(service: Service, num_bytes: int, **changes: Any) -> Response:
    body = {"bytes": num_bytes, "filename": "rows.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune", **changes}
    return service.http.post("/v1/uploads", json=body)


def add(service: Service, upload: str, content: bytes) -> Response:
    return service.http.post(f"/v1/uploads/{upload}/parts", files={"data": ("part", content)})


def complete(service: Service, upload: str, part_ids: list[str], **more: Any) -> Response:
    return service.http.post(f"/v1/uploads/{upload}/complete", json={"part_ids": part_ids, **more})


def started(service: Service, num_bytes: int, *contents: bytes) -> tuple[str, list[str]]:
    """An upload with parts."""
    upload = begin(service, num_bytes).json()["id"]
    return upload, [add(service, upload, content).json()["id"] for content in contents]


def end_time(service: Service, upload: str) -> None:
    """As if an hour had gone by."""
    with service.app.state.sessions() as session:
        session.get_one(Upload, upload).expires_at = datetime.now(UTC) - timedelta(seconds=1)
        session.commit()


def test_parts_that_came_side_by_side_in_any_order_make_the_file(service: Service) -> None:
    rows = json_lines([chat_row(answer="word " * 1000)] * 4000)
    cuts = [0, MIN_PART_BYTES, 2 * MIN_PART_BYTES + 17, 3 * MIN_PART_BYTES + 99, len(rows)]
    pieces = [rows[start:end] for start, end in pairwise(cuts)]
    upload = begin(service, len(rows)).json()
    assert (upload["object"], upload["status"], upload["file"]) == ("upload", "pending", None)
    assert upload["expires_at"] == upload["created_at"] + 3600
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda piece: add(service, upload["id"], piece).json(), pieces[::-1]))
    assert {part["upload_id"] for part in parts} == {upload["id"]}
    done = complete(service, upload["id"], [part["id"] for part in parts[::-1]], md5=hashlib.md5(rows).hexdigest())
    file = done.json()["file"]
    assert (done.json()["status"], file["bytes"]) == ("completed", len(rows))
    assert file["sha256"] == hashlib.sha256(rows).hexdigest()
    assert service.http.get(f"/v1/files/{file['id']}/content").content == rows
    checked = service.checked(service.http.get(f"/v1/files/{file['id']}"))
    assert (checked["status"], checked["rows"]) == ("processed", 4000)


def test_one_part_of_any_size_is_a_file_and_its_hash_is_found_by_the_check(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    file = complete(service, upload, parts).json()["file"]
    assert file["sha256"] is None
    checked = service.checked(service.http.get(f"/v1/files/{file['id']}"))
    assert checked["sha256"] == hashlib.sha256(ROWS).hexdigest()


def test_a_completion_that_is_asked_for_again_answers_the_same(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    first = complete(service, upload, parts).json()
    service.checked(service.http.get(f"/v1/files/{first['file']['id']}"))
    again = complete(service, upload, parts).json()
    assert (again["id"], again["file"]["id"], again["status"]) == (first["id"], first["file"]["id"], "completed")
    service.http.delete(f"/v1/files/{first['file']['id']}")
    assert complete(service, upload, parts).json()["file"] is None


def test_of_two_completions_at_once_both_answer_the_one_file(service: Service) -> None:
    upload, parts = started(service, MIN_PART_BYTES + 1, os.urandom(MIN_PART_BYTES), b"x")
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda _: complete(service, upload, parts), range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["file"]["id"] for answer in answers}) == 1


def test_more_completions_than_the_service_takes_are_to_come_again(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    for _ in range(COMPLETIONS_AT_ONCE):
        assert uploads._completing.acquire(blocking=False)
    try:
        answer = complete(service, upload, parts)
    finally:
        uploads._completing.release(COMPLETIONS_AT_ONCE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert complete(service, upload, parts).status_code == 200


def test_a_part_that_was_sent_twice_is_left_out(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS, ROWS)
    file = complete(service, upload, parts[1:]).json()["file"]
    assert service.http.get(f"/v1/files/{file['id']}/content").content == ROWS


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ((0, 0), "is named twice"),
        ((1, 0), "all but the last must have at least 5,242,880"),
        ((0,), "the parts have 5,242,880 bytes together, and 5,242,881 were announced"),
    ],
)
def test_the_wrong_parts_are_refused_and_the_right_ones_still_taken(
    service: Service, chosen: tuple[int, ...], problem: str
) -> None:
    upload, parts = started(service, MIN_PART_BYTES + 1, bytes(MIN_PART_BYTES), b"x")
    error = error_of(complete(service, upload, [parts[index] for index in chosen]))
    assert error["param"] == "part_ids"
    assert problem in error["message"]
    assert complete(service, upload, parts).status_code == 200


def test_a_part_of_another_upload_is_as_unknown_as_one_that_never_was(service: Service) -> None:
    upload, _ = started(service, len(ROWS), ROWS)
    _, others = started(service, len(ROWS), ROWS)
    words = []
    for part in (others[0], "part-none"):
        error = error_of(complete(service, upload, [part]))
        assert error["param"] == "part_ids"
        words.append(error["message"].replace(part, "…"))
    assert words[0] == words[1]


@pytest.mark.parametrize("part_ids", [[], ["x" * 65], ["x"] * 10_001, [1], None])
def test_what_cannot_be_part_ids_is_refused(service: Service, part_ids: Any) -> None:
    upload, _ = started(service, 1)
    assert str(error_of(complete(service, upload, part_ids))["param"]).startswith("part_ids")


def test_a_wrong_md5_is_told_and_another_try_may_be_right(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    error = error_of(complete(service, upload, parts, md5="0" * 32))
    assert error["param"] == "md5"
    assert hashlib.md5(ROWS).hexdigest() in error["message"]
    assert error_of(complete(service, upload, parts, md5="abc"))["param"] == "md5"
    assert complete(service, upload, parts, md5=hashlib.md5(ROWS).hexdigest().upper()).status_code == 200


def test_a_store_that_fails_in_the_middle_leaves_an_upload_that_can_be_completed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    part = layout.upload_part(upload, parts[0])
    service.store.delete(part)
    assert complete(service, upload, parts).status_code == 503
    service.store.put(part, ROWS)
    assert complete(service, upload, parts).status_code == 200


def test_a_cancelled_upload_takes_nothing_more(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    for _ in range(2):
        assert service.http.post(f"/v1/uploads/{upload}/cancel").json()["status"] == "cancelled"
    for answer in (add(service, upload, ROWS), complete(service, upload, parts)):
        assert answer.headers["x-should-retry"] == "false"
        assert f"upload {upload} is cancelled" in error_of(answer, 409)["message"]


def test_a_completed_upload_takes_nothing_more(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    complete(service, upload, parts)
    error_of(add(service, upload, ROWS), 409)
    error_of(service.http.post(f"/v1/uploads/{upload}/cancel"), 409)


def test_an_upload_ends_after_an_hour_though_nobody_noted_it(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    end_time(service, upload)
    for answer in (
        add(service, upload, ROWS),
        complete(service, upload, parts),
        service.http.post(f"/v1/uploads/{upload}/cancel"),
    ):
        assert f"upload {upload} is expired" in error_of(answer, 409)["message"]


def test_a_part_that_came_while_the_upload_ended_is_not_kept(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, _ = started(service, len(ROWS))
    real = ObjectStore.upload

    def late(store: ObjectStore, key: str, source: Any) -> None:
        real(store, key, source)
        service.http.post(f"/v1/uploads/{upload}/cancel")

    monkeypatch.setattr(ObjectStore, "upload", late)
    assert "ended while the part came" in error_of(add(service, upload, ROWS), 409)["message"]
    assert service.store.list(f"{layout.upload_parts(upload)}/") == []


def test_parts_have_bounds(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, _ = started(service, 1)
    for content in (b"", bytes(MAX_PART_BYTES + 1)):
        assert error_of(add(service, upload, content))["param"] == "data"
    monkeypatch.setattr(uploads, "MAX_PARTS", 1)
    assert add(service, upload, b"x").status_code == 200
    assert "has 1 parts already" in error_of(add(service, upload, b"y"))["message"]


def test_parts_of_much_more_than_was_announced_are_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PART_BYTES", 10)
    upload, _ = started(service, 3, b"x" * 10)
    assert add(service, upload, b"x" * 6).status_code == 200
    assert "3 bytes were announced, and the parts have 17" in error_of(add(service, upload, b"x"))["message"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": -1}, "bytes"),
        ({"bytes": 10**30}, "bytes"),
        ({"bytes": (100 << 30) + 1}, "bytes"),
        ({"filename": ""}, "filename"),
        ({"filename": "x" * 256}, "filename"),
        ({"filename": "x" * 5000}, "filename"),
        ({"mime_type": "x" * 256}, "mime_type"),
        ({"purpose": "vision"}, "purpose"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds"),
        ({"base": "none"}, "base"),
        ({"template": "none"}, "template"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_upload_that_makes_no_sense_is_refused_by_its_field(
    service: Service, changes: dict[str, Any], param: str
) -> None:
    assert error_of(begin(service, 1, **changes))["param"] == param


def test_what_was_asked_of_the_upload_is_so_of_the_file(service: Service) -> None:
    content = json_lines([chat_row("what is this ?", "a cat")])
    life = {"anchor": "created_at", "seconds": 3600}
    upload = begin(service, len(content), expires_after=life, base=BASE, template="short", filename="x/a.jsonl").json()
    part = add(service, upload["id"], content).json()["id"]
    file = complete(service, upload["id"], [part]).json()["file"]
    assert (file["filename"], file["expires_at"]) == ("a.jsonl", file["created_at"] + 3600)
    checked = service.checked(service.http.get(f"/v1/files/{file['id']}"))
    assert checked["check"]["tokens"]["total"] == 11


def test_an_upload_of_another_project_is_as_unknown_as_one_that_never_was(service: Service, database: str) -> None:
    theirs, parts = started(service, len(ROWS), ROWS)
    other = new_project(database).headers
    words = []
    for upload in (theirs, "upload-none"):
        for request in (
            {"url": f"/v1/uploads/{upload}/parts", "files": {"data": ("part", ROWS)}},
            {"url": f"/v1/uploads/{upload}/complete", "json": {"part_ids": parts}},
            {"url": f"/v1/uploads/{upload}/cancel"},
        ):
            error = error_of(service.http.post(**request, headers=other), 404)
            words.append(error["message"].replace(upload, "…"))
    assert len(set(words)) == 1


def test_deeds_are_in_the_audit_log(service: Service) -> None:
    upload, parts = started(service, len(ROWS), ROWS)
    complete(service, upload, parts)
    cancelled, _ = started(service, 1)
    service.http.post(f"/v1/uploads/{cancelled}/cancel")
    with service.app.state.sessions() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.target.in_([upload, cancelled])))
        deeds = sorted(entry.action for entry in rows)
    assert deeds == ["upload.cancelled", "upload.completed", "upload.created", "upload.created"]
