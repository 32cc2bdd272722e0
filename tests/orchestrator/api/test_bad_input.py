"""Bodies that no client should send: the documented refusal names the field and the remedy; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ibllm_core.formats.files import data_url, json_lines, picture
from tests.orchestrator.api.refusals import JOBS, NO_TEXT, create, fields, nothing_written, refused
from tests.orchestrator.api.service import BASE, ENCODER, Service

INTEGERS = [
    "seed",
    "resources.workers",
    "resources.min_workers",
    "resources.micro_batch_tokens",
    "data.views",
    "retry.max_attempts",
    "adapter.lora.rank",
    "stages.0.hyperparameters.n_epochs",
    "stages.0.hyperparameters.max_steps",
    "stages.0.hyperparameters.warmup_steps",
    "stages.0.hyperparameters.row_tokens",
    "stages.0.hyperparameters.rows_per_step",
    "stages.0.checkpoints.every_steps",
    "stages.0.checkpoints.keep_last",
    "stages.0.checkpoints.keep_best",
    "stages.0.checkpoints.keep_every",
    "stages.0.evaluation.every_steps",
    "stages.0.evaluation.max_samples",
]
FLOATS = [
    "budget.gpu_hours",
    "retry.backoff_seconds",
    "resources.cpus_per_worker",
    "resources.gpus_per_worker",
    "data.max_bad_share",
    "adapter.lora.alpha",
    "stages.0.hyperparameters.learning_rate",
    "stages.0.hyperparameters.weight_decay",
    "stages.0.hyperparameters.warmup_epochs",
    "stages.0.hyperparameters.gradient_clip",
    "stages.0.checkpoints.every_seconds",
]
OPENAI = [f"method.supervised.hyperparameters.{name}" for name in ("n_epochs", "batch_size")]


@pytest.fixture(scope="module")
def file(service: Service) -> str:
    return service.file()


@pytest.fixture(scope="module")
def captions(service: Service) -> str:
    """Of long captions, so that a sample has many tokens."""
    row = {"image": data_url(picture(0)), "caption": "a cat on the mat " * 40}
    return service.file("captions.jsonl", json_lines([row]))


@pytest.fixture(autouse=True)
def nothing_is_written(database: str, file: str, captions: str) -> Iterator[None]:
    with nothing_written(database):
        yield


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        ("[" * 10_000 + "]" * 10_000, "nests deeper than 32 levels: flatten it"),
        ("[" * 40 + "]" * 40, "nests deeper than 32 levels: flatten it"),
        ('{"a":' * 40 + "1" + "}" * 40, "nests deeper than 32 levels: flatten it"),
        ("[" + "[]," * 200_000 + "1]", "more than 100000 lists and objects: send data as a file"),
    ],
    ids=["10,000 deep", "40 deep", "40 objects deep", "200,000 brackets"],
)
def test_json_that_nests_without_end_is_refused(service: Service, body: str, remedy: str) -> None:
    assert remedy in refused(create(service, body))


@pytest.mark.parametrize("text", [r"a\u0000b", r"\ud800", r"\udc00x"])
@pytest.mark.parametrize("template", ['{{"model": "{}"}}', '{{"{}": 1}}', '{{"metadata": {{"{}": "v"}}}}', '["{}"]'])
def test_what_no_database_stores_is_refused_wherever_it_stands(service: Service, template: str, text: str) -> None:
    assert NO_TEXT in refused(create(service, template.format(text)))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "\xff"}',
        b'{"model": "\x80abc"}',
        b'{"seed": NaN}',
        b'{"seed": Infinity}',
        b'{"seed": -Infinity}',
        b'{"seed": 01}',
        b'{"model": "a"',
        b"model=a",
        b"{'model': 'a'}",
        b'{"model": "a"} x',
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_is_refused(service: Service, body: bytes) -> None:
    assert "the body is no JSON: " in refused(create(service, body), code="invalid_json")


def test_a_name_that_comes_twice_is_refused(service: Service) -> None:
    told = refused(create(service, '{"model": "a", "seed": 1, "model": "b"}'), code="invalid_json")
    assert "it says 'model' twice: leave one of them out" in told


@pytest.mark.parametrize("body", ["[]", "null", '"text"', "1", "true"])
def test_json_that_is_no_object_is_refused(service: Service, body: str) -> None:
    assert refused(create(service, body)).startswith("body: ")


def test_an_empty_body_is_refused(service: Service) -> None:
    assert "body: Field required" in refused(create(service, b""))


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_a_body_of_another_type_is_refused(service: Service, kind: str) -> None:
    told = refused(create(service, b"model=a", **{"content-type": kind}), 415, code="unsupported_media_type")
    assert "send JSON with the header Content-Type: application/json" in told


def test_json_as_a_form_is_refused(service: Service) -> None:
    answer = service.http.post(JOBS, files={"model": (None, "a")})
    assert "body: " in refused(answer)


def set_at(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *way, last = path.split(".")
    place: Any = body
    for part in way:
        place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
    place[last] = value
    return body


@pytest.mark.parametrize("path", INTEGERS)
@pytest.mark.parametrize("value", [10**400, 10**20, -1, True, 1.5, 2.0, "1", [1]])
def test_an_integer_is_an_integer_within_its_limits(service: Service, file: str, path: str, value: Any) -> None:
    told = refused(create(service, set_at(fields(file), path, value)), param=path)
    assert told.startswith(f"{path}: Input should be ")


@pytest.mark.parametrize("path", FLOATS)
@pytest.mark.parametrize("value", ["1e400", "-1", str(10**400), "true", '"1"', "[]"])
def test_a_number_is_a_number_within_its_limits(service: Service, file: str, path: str, value: str) -> None:
    body = json.dumps(set_at(fields(file), path, "here")).replace('"here"', value)
    assert f"{path}: Input should be " in refused(create(service, body), param=path)


@pytest.mark.parametrize("path", OPENAI)
@pytest.mark.parametrize("value", [10**400, 10**20, -1, 0, True, 1.5, "many"])
def test_openais_numbers_are_named_by_the_place_where_they_were_sent(
    service: Service, file: str, path: str, value: Any
) -> None:
    body = {"model": BASE, "encoder": ENCODER, "training_file": file}
    told = refused(create(service, set_at(body, path, value)), param=path)
    assert f"{path}: Input should be 'auto'" in told


@pytest.mark.parametrize(
    ("settings", "name", "words"),
    [
        (
            {"learning_rate_multiplier": 1e6, "learning_rate": 1e29},
            "learning_rate_multiplier",
            "makes learning_rate 1e+35",
        ),
        ({"batch_size": 1 << 20, "row_tokens": 16}, "batch_size", "makes rows_per_step"),
    ],
)
def test_what_openais_numbers_come_to_has_limits_too(
    service: Service, captions: str, settings: dict[str, Any], name: str, words: str
) -> None:
    body = {"model": BASE, "encoder": ENCODER, "training_file": captions, "hyperparameters": settings}
    assert words in refused(create(service, body), param=f"hyperparameters.{name}")


def test_a_setting_that_is_none_is_named(service: Service, captions: str) -> None:
    body = {"model": BASE, "encoder": ENCODER, "training_file": captions, "hyperparameters": {"colour": 1}}
    assert "colour" in refused(create(service, body), param="hyperparameters.colour")


def test_all_problems_are_told_at_once(service: Service, file: str) -> None:
    told = refused(create(service, fields(file, seed=-1, priority="urgent", colour="red")), param="priority")
    assert all(f"{name}: " in told for name in ("seed", "priority", "colour"))
