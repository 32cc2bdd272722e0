"""docs/data.md is held against the code: every example, sentence and column that it shows."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ibllm_core.contract.job_spec import StageRequest
from ibllm_core.contract.media import Modality
from ibllm_core.contract.templates import TEMPLATE_NAMES
from ibllm_core.data.dataset import CompiledSample
from ibllm_core.data.shards import SAMPLES, QuarantineWriter, write_features, write_samples
from ibllm_core.formats.check import Report
from ibllm_core.formats.shapes.known import SHAPES
from ibllm_core.formats.shapes.media import MEDIA_KEYS
from ibllm_core.storage import ObjectStore
from orchestrator.cli.data import app
from tests.docs.pages import DOCS, block_after, blocks, read, table
from tests.ibllm_core.formats.files import picture, sound
from tests.ibllm_core.formats.object_store import running_store

PAGE = read("data.md")
EXAMPLES = re.findall(r"^\*\*`(.+)`\*\*( in a folder)? is (.+)\n```(\w*)\n((?s:.+?))^```", PAGE, re.MULTILINE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the media that the examples name."""
    (tmp_path / "pictures").mkdir()
    for name in ("cat.png", "dog.png", "room.png", "pictures/cat.png"):
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "bark.wav").write_bytes(sound())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def check(place: Path) -> Report:
    """What ``ibllm data check`` says."""
    result = CliRunner().invoke(app, ["check", str(place), "--json"])
    return Report.model_validate_json(result.stdout)


@pytest.mark.parametrize(("name", "in_folder", "called", "language", "body"), EXAMPLES, ids=[e[0] for e in EXAMPLES])
def test_each_example_is_recognised_under_the_name_that_the_page_gives(
    folder: Path, name: str, in_folder: str, called: str, language: str, body: str
) -> None:
    file = folder / name
    if language == "python":
        exec(compile(body, name, "exec"), {})
    elif language == "bash":
        subprocess.run(["bash", "-ec", body], check=True)
    else:
        file.write_text(body)
    report = check(file.parent if in_folder else file)
    assert (report.format, report.first_bad, report.is_usable) == (called, (), True)


def test_every_kind_of_rows_has_an_example_and_every_kind_of_rows_is_in_the_table() -> None:
    names = [shape.name for shape in SHAPES]
    assert [rows for rows, *_ in table(PAGE, "rows")] == names
    assert {called.partition(" (")[0] for _, _, called, *_ in EXAMPLES} == set(names)


def test_the_check_prints_what_the_page_shows(folder: Path) -> None:
    (folder / "pets.jsonl").write_text(block_after(PAGE, "**`pets.jsonl`**"))
    (shown,) = blocks(PAGE, "console")
    command, *expected = [line for line in shown.splitlines() if line]
    result = CliRunner().invoke(app, ["check", "pets.jsonl"])
    printed = [line.rstrip() for line in result.stdout.splitlines() if line]
    assert command.startswith("$ ibllm data check pets.jsonl --base")
    # The page names a base that the tests do not have: the lines about tokens are its own.
    tokens = slice(expected.index("tokens of a sample"), expected.index("bad rows"))
    expected[tokens] = ["tokens were not counted: name a base with --base, and its tokenizer counts them"]
    assert (printed, result.exit_code) == (expected, 1)


def test_what_an_upload_answers_is_the_whole_report() -> None:
    (listed,) = re.findall(r"has the result in `check`: (.+?), the first 20 bad rows", PAGE, re.DOTALL)
    assert re.findall(r"`(\w+)`", listed) == list(Report.model_fields)


def test_every_key_of_media_and_every_template_is_named() -> None:
    (keys,) = re.findall(r"The key says the kind: (.+?)\. In a", PAGE, re.DOTALL)
    assert re.findall(r"`(\w+)`", keys) == list(MEDIA_KEYS)
    assert Modality.TEXT not in MEDIA_KEYS.values()
    assert {name.strip("`") for name, *_ in table(PAGE, "`template`")} == set(TEMPLATE_NAMES)


def test_the_mixture_is_one_that_a_job_takes() -> None:
    (stage,) = [block for block in blocks(PAGE, "json") if '"mix"' in block]
    assert [share.weight for share in StageRequest.model_validate(json.loads(stage)).mix] == [0.25, 2]


def sentences() -> Iterator[str]:
    """Every text of the code, with … where a value stands."""
    for package in ("ibllm_core", "workers"):
        for file in (DOCS.parent / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def test_every_refusal_of_the_page_is_one_of_the_code() -> None:
    said = "\n".join(sentences())
    shown = [sentence.removeprefix("… ") for sentence, _ in table(PAGE, "sentence")]
    assert len(shown) > 20
    assert [sentence for sentence in shown if sentence not in said] == []


def test_the_columns_of_a_compiled_dataset() -> None:
    columns = [name for cell, _ in table(PAGE, "column of `shard-*.parquet`") for name in re.findall(r"`(\w+)`", cell)]
    assert columns == SAMPLES.names


def test_a_compiled_dataset_is_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    sample = CompiledSample(tokens=[1, 2, 3], labels=[(1, 3)], feature=1, row=1, instruction="what?", answer="a cat")
    write_samples(compiled / "shard-00000.parquet", [sample])
    vectors = np.arange(16).reshape(2, 2, 4) / 16
    write_features(compiled / "features-00000.parquet", ["image/0", "image/1"], vectors)
    with QuarantineWriter(compiled / "quarantine.parquet") as quarantine:
        quarantine.add(4, "is broken")
    (tmp_path / "store").mkdir()
    printed = io.StringIO()
    with running_store(tmp_path / "store") as running, contextlib.redirect_stdout(printed):
        settings = running.settings
        ObjectStore(settings).upload_folder("datasets/ds-1", compiled)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", settings.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.secret_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for block in blocks(PAGE, "python")[-2:]:
            exec(compile(block.replace("ds-…", "ds-1"), "data.md", "exec"), {})
    assert printed.getvalue() == f"[{{'row': 4, 'reason': 'is broken'}}]\na cat {vectors[1, 0].astype(np.float16)}\n"
