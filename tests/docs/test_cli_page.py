"""docs/cli.md against the command and the client: its commands, its spec, its exit statuses, its example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.cli.exits import Exit
from orchestrator.cli.lazy import load
from orchestrator.cli.main import Contents
from orchestrator.cli.spec import checked, read_spec
from orchestrator.client import Client
from tests.docs.pages import block_after, blocks, read, table

PAGE = read("cli.md")
COMMAND = re.compile(r"\bibllm ([a-z][a-z-]*)(?: ([a-z]+)\b)?([^\n`|&]*)")
OPTION = re.compile(r"(?<!\S)(--?[a-z][a-z-]*)")


def test_the_table_has_all_commands_and_no_others() -> None:
    named = {name for row in table(PAGE, "commands") for name in re.findall(r"`([a-z- ]+)`", row[0])}
    groups = {name for name in named if " " in name}
    assert {name.partition(" ")[0] for name in named} == set(Contents.stubs)
    assert {name.partition(" ")[2] for name in groups} == set(load(Contents.stubs["data"]).commands)


def test_the_exit_statuses_are_the_commands() -> None:
    assert [int(row[0]) for row in table(PAGE, "status")] == list(Exit)


@pytest.mark.parametrize("example", [found.group() for found in COMMAND.finditer("\n".join(blocks(PAGE, "bash")))])
def test_examples_use_options_that_there_are(example: str) -> None:
    found = COMMAND.fullmatch(example)
    assert found
    command = load(Contents.stubs[found[1]])
    command = getattr(command, "commands", {}).get(found[2], command)
    known = {word for param in command.params for word in param.opts}
    assert set(OPTION.findall(example.partition("#")[0])) <= known


def test_the_spec_is_one(tmp_path: Path) -> None:
    path = tmp_path / "birds.yaml"
    path.write_text(block_after(PAGE, "takes the body of `POST /v1/fine_tuning/jobs`"))
    spec = read_spec(path)
    assert checked(spec, "birds.yaml")["stages"][0]["hyperparameters"]["learning_rate"] == 5e-4


def test_the_client_has_the_resources_that_the_page_names() -> None:
    [example] = blocks(PAGE, "python")
    compile(example, "docs/cli.md", "exec")
    client = Client("http://host", "k")
    resources = re.search(r"`client.jobs`, (.*?) are its resources, beside (.*?);", PAGE, re.DOTALL)
    assert resources
    for name in re.findall(r"`(\w+)`", resources.group()):
        assert hasattr(client, name)
    for resource, method in re.findall(r"client\.(\w+)\.(\w+)\(", example):
        assert callable(getattr(getattr(client, resource), method))
