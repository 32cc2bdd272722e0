"""Uploads are told what they hold before a job pays for them."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ibllm_core.contract import layout
from orchestrator.db.models import File
from tests.ibllm_core.formats.files import chat_row, data_url, json_lines, picture, tar
from tests.orchestrator.api.service import BASE, Service, error_of

BAD = {"messages": []}
GOOD = json_lines([chat_row()])


def llava(number: int) -> dict[str, Any]:
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A cat."), ("human", "Where?"), ("gpt", "On the mat.")]
    said = [{"from": who, "value": words} for who, words in turns]
    return {"id": str(number), "image": data_url(picture(number)), "conversations": said}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def life(seconds: int) -> dict[str, str]:
    return {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(seconds)}


UPLOADS = {
    "chat.jsonl": (
        json_lines([chat_row(), chat_row("Where?", "There.")]),
        {"format": "OpenAI chat (JSON Lines)", "rows": 2, "turns": 2, "media": {}, "text_only": 2},
    ),
    "llava.json": (
        json.dumps([llava(0), llava(1), llava(2)]).encode(),
        {"format": "LLaVA conversations (JSON array)", "rows": 3, "turns": 6, "media": {"image": 3}, "text_only": 0},
    ),
    "captions.tsv": (
        b"a cat\thttp://example.com/1.jpg\na dog\thttp://example.com/2.jpg\n",
        {"format": "image-caption pairs (TSV)", "rows": 2, "turns": 2, "media": {"image": 2}, "inline_bytes": 0},
    ),
    "train.parquet": (
        parquet([{"image": {"bytes": picture(n), "path": None}, "text": f"picture {n}"} for n in range(4)]),
        {"format": "image-caption pairs (Parquet)", "rows": 4, "media": {"image": 4}},
    ),
    "shard-000000.tar": (
        tar({"1.png": picture(1), "1.txt": b"a cat", "2.png": picture(2), "2.txt": b"a dog"}),
        {"format": "image-caption pairs (WebDataset)", "rows": 2, "media": {"image": 2}, "duplicates": 0},
    ),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_is_recognised_and_told_what_it_holds(service: Service, name: str) -> None:
    content, expected = UPLOADS[name]
    file = service.checked(service.upload(name, content))
    assert (file["status"], file["status_details"]) == ("processed", None)
    assert {key: file["check"][key] for key in expected} == expected
    assert (file["check"]["bad_rows"], file["check"]["is_usable"], file["rows"]) == (0, True, expected["rows"])
    assert service.http.get(f"/v1/files/{file['id']}").json() == file
    assert service.http.get(f"/v1/files/{file['id']}/content").content == content


def test_a_file_of_mostly_bad_rows_is_an_error_with_the_first_reasons(service: Service) -> None:
    rows = [chat_row(), *[BAD] * 4]
    file = service.checked(service.upload("bad.jsonl", json_lines(rows) + b"{\n"))
    assert file["status"] == "error"
    assert file["status_details"].startswith("5 of 6 rows cannot be used (limit 1%): row 2: ")
    assert file["status_details"].count("; row ") == 2
    assert [bad["row"] for bad in file["check"]["first_bad"]] == [2, 3, 4, 5, 6]
    assert (file["check"]["samples"], file["check"]["bad_rows"]) == (1, 5)


def test_one_bad_row_in_200_is_told_and_borne(service: Service) -> None:
    file = service.checked(service.upload("some.jsonl", json_lines([*[chat_row()] * 199, BAD])))
    assert (file["status"], file["status_details"]) == ("processed", None)
    assert (file["check"]["bad_share"], file["check"]["first_bad"][0]["row"]) == (0.005, 200)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("notes.jsonl", b" \n", "holds nothing but blanks: give a file with rows"),
        ("notes.txt", b"Dear diary,\n", "convert it to one of these"),
        ("rows.jsonl", json_lines([{"a": 1}]), "holds rows with the keys 'a'. Known rows are"),
        ("rows.jsonl.gz", b"\x1f\x8b" + bytes(20), "is compressed with gzip: unpack it"),
        ("torn.parquet", UPLOADS["train.parquet"][0][:-100], "write or copy the file again"),
    ],
)
def test_what_is_no_dataset_is_an_error_with_the_remedy(
    service: Service, name: str, content: bytes, problem: str
) -> None:
    file = service.checked(service.upload(name, content))
    assert (file["status"], file["check"], file["rows"]) == ("error", None, None)
    assert problem in file["status_details"]
    assert service.http.get(f"/v1/files/{file['id']}/content").content == content


def test_media_beside_an_upload_are_bad_rows(service: Service) -> None:
    file = service.checked(service.upload("captions.tsv", b"url\tcaption\n1.png\ta cat\n"))
    assert file["status"] == "error"
    assert "beside the upload captions.tsv there are no files" in file["status_details"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("data/train/rows.jsonl", "rows.jsonl"),
        ("../../etc/rows.jsonl", "rows.jsonl"),
        (r"C:\data\rows.jsonl", "rows.jsonl"),
        ("a\x1b[2Jb.jsonl", "a[2Jb.jsonl"),
        ("/", "upload.jsonl"),
        ("é" * 255, "é" * 255),
    ],
)
def test_a_name_loses_its_folders(service: Service, given: str, kept: str) -> None:
    assert service.upload(given, GOOD).json()["filename"] == kept


def test_a_base_counts_tokens_under_the_template(service: Service) -> None:
    content = json_lines([chat_row("what is this ?", "a cat")] * 2)

    def tokens(**form: str) -> Any:
        return service.checked(service.upload("rows.jsonl", content, **form))["check"]["tokens"]

    short = tokens(base=BASE, template="short")
    assert (short["total"], short["longest"], short["bins"]) == (22, 11, [{"up_to": 16, "samples": 2}])
    assert tokens(base=BASE)["mean"] > short["mean"]
    assert tokens() is None


@pytest.mark.parametrize(
    ("form", "param", "problem"),
    [
        ({"base": "none"}, "base", "there is no base model 'none' in the object store"),
        ({"base": "../files"}, "base", "there is no base model"),
        ({"base": BASE, "template": "none"}, "template", "must be one of alpaca, short, caption, chat"),
        ({"template": "none"}, "template", "but is 'none'"),
        ({"base": "wordless"}, "base", "lengths cannot be counted with base 'wordless'"),
        ({"purpose": "assistants"}, "purpose", "must be fine-tune, since training data is all that this service reads"),
        ({"purpose": "fine-tune-results"}, "purpose", "but is 'fine-tune-results'"),
        (
            {"expires_after[anchor]": "created_at"},
            "expires_after",
            "needs both anchor, which is created_at, and seconds",
        ),
        ({"expires_after[seconds]": "3600"}, "expires_after", "send both or none"),
        (life(3599), "expires_after[seconds]", "greater than or equal to 3600"),
        (life(2_592_001), "expires_after[seconds]", "less than or equal to 2592000"),
        (life(10**40), "expires_after[seconds]", "less than or equal to 2592000"),
        ({**life(3600), "expires_after[anchor]": "x"}, "expires_after[anchor]", "created_at"),
    ],
)
def test_unknown_words_of_an_upload_are_refused_and_nothing_is_kept(
    service: Service, form: dict[str, str], param: str, problem: str
) -> None:
    service.store.put_json(layout.manifest(layout.base("wordless")), {"files": {}})
    before = service.store.list("files/")
    error = error_of(service.upload("rows.jsonl", json_lines([chat_row()]), **form))
    assert error["param"] == param
    assert problem in error["message"]
    assert service.store.list("files/") == before


def test_a_file_is_told_at_once_and_checked_afterwards(service: Service) -> None:
    answer = service.upload("rows.jsonl", GOOD).json()
    assert (answer["status"], answer["check"], answer["rows"]) == ("uploaded", None, None)
    assert (answer["bytes"], answer["sha256"]) == (len(GOOD), hashlib.sha256(GOOD).hexdigest())


def test_a_large_file_is_hashed_once_in_passing(service: Service) -> None:
    content = json_lines([chat_row(answer="word " * 100_000)] * 40)  # stored in several parts
    file = service.upload("rows.jsonl", content).json()
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert service.http.get(f"/v1/files/{file['id']}/content").content == content


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [("rows.jsonl", b"", "the file is empty"), ("x" * 256, GOOD, "has 256 characters, at most 255 are kept")],
)
def test_what_is_no_file_is_refused(service: Service, name: str, content: bytes, problem: str) -> None:
    error = error_of(service.upload(name, content))
    assert error["param"] == "file"
    assert problem in error["message"]


def test_a_form_without_a_file_or_with_many_fields_is_refused(service: Service) -> None:
    fields = {"purpose": "fine-tune"}
    assert error_of(service.http.post("/v1/files", data=fields, files={"x": ("a", GOOD)}))["param"] == "file"
    assert error_of(service.http.post("/v1/files", files={"file": ("a", GOOD)}))["param"] == "purpose"
    many = {**fields, **{f"x{number}": "y" for number in range(100)}}
    error_of(service.http.post("/v1/files", data=many, files={"file": ("a", GOOD)}))
    error_of(service.http.post("/v1/files", data={"purpose": "x" * 10_000}, files={"file": ("a", GOOD)}))


def test_a_file_may_have_an_end(service: Service) -> None:
    file = service.upload("rows.jsonl", GOOD, **life(3600)).json()
    assert file["expires_at"] == file["created_at"] + 3600
    assert service.upload("rows.jsonl", GOOD).json()["expires_at"] is None


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("rows.jsonl", 'attachment; filename="rows.jsonl"'),
        ('a "b" é.jsonl', "attachment; filename*=utf-8''a%20%22b%22%20%C3%A9.jsonl"),
    ],
)
def test_content_is_saved_under_the_name(service: Service, name: str, disposition: str) -> None:
    file = service.upload("x", GOOD).json()["id"]
    with service.app.state.sessions() as session:
        session.get_one(File, file).filename = name
        session.commit()
    assert service.http.get(f"/v1/files/{file}/content").headers["content-disposition"] == disposition


def test_a_file_whose_bytes_are_gone_says_so(service: Service) -> None:
    file = service.file()
    service.store.delete(layout.file(file))
    error = error_of(service.http.get(f"/v1/files/{file}/content"), 404)
    assert (error["code"], error["message"]) == (
        "content_missing",
        f"the bytes of {file} are gone: upload the file again",
    )


def test_a_deleted_file_is_gone(service: Service) -> None:
    identity = service.file()
    assert service.http.delete(f"/v1/files/{identity}").json() == {"id": identity, "object": "file", "deleted": True}
    assert error_of(service.http.get(f"/v1/files/{identity}"), 404)["code"] == "not_found"
    assert error_of(service.http.delete(f"/v1/files/{identity}"), 404)["code"] == "not_found"
    assert not service.store.exists(f"files/{identity}/content")


def test_a_report_of_an_earlier_version_is_shown_without_what_it_did_not_tell(service: Service) -> None:
    file = service.file()
    with service.app.state.sessions() as session:
        row = session.get_one(File, file)
        row.check = {name: value for name, value in row.check.items() if name not in ("stage", "characters")}
        row.created_at = datetime(2026, 1, 1, tzinfo=UTC)
        session.commit()
    shown = service.http.get(f"/v1/files/{file}").json()["check"]
    assert (shown["stage"], shown["characters"], shown["rows"]) == (None, None, 1)
