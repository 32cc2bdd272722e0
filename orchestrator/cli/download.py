"""``ibllm download``: results of a job, weights of a model, or a file, as files of this machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ibllm_core.contract.api.files import FileObject
from ibllm_core.contract.api.jobs import ModelFile
from orchestrator.cli.follow import JOB_PREFIX
from orchestrator.cli.screen import say
from orchestrator.cli.service import ServiceCommand, connect
from orchestrator.cli.uploading import moving_bar
from orchestrator.client import Client
from orchestrator.client.download import Progress

app = typer.Typer()
FILE_PREFIX = "file-"
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file to come, and how it does; ``sha256`` None where nobody knows its hash."""

    name: str
    sha256: str | None
    fetch: Callable[[Path, Progress], Path]


@app.command(cls=ServiceCommand)
def download(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="JOB|MODEL|FILE", help="id of one of them")],
    to: Annotated[Path | None, typer.Option(help="folder; else one of the id's name, for a file the current")] = None,
) -> None:
    """Download a job's results, a model's weights, or a file.

    A job's results are the weights of its model, if it has one yet, and its metrics. What is here already is not
    fetched again, and nothing is overwritten. The paths are printed.
    """
    folder = to or (Path() if what.startswith(FILE_PREFIX) else Path(UNSAFE.sub("-", what)))
    with connect(context) as client:
        for item in _items(client, what):
            typer.echo(_fetch(item, folder / safe_name(item.name)))


def safe_name(name: str) -> str:
    """The last part of a name, which may come from anybody, as the name of a file in a folder."""
    last = Path(name).name
    if not last.strip(".") or not last.isprintable():
        raise typer.BadParameter(f"{name!r} cannot be the name of a file here", param_hint="JOB|MODEL|FILE")
    return last


def _items(client: Client, what: str) -> Iterator[Item]:
    if what.startswith(FILE_PREFIX):
        yield _of_file(client, client.files.retrieve(what))
    elif what.startswith(JOB_PREFIX):
        job = client.jobs.retrieve(what)
        if not (job.fine_tuned_model or job.result_files):
            say(f"{job.id} is {job.status} and has no results yet: `ibllm watch {job.id}`")
        for file_id in job.result_files:
            yield _of_file(client, client.files.retrieve(file_id))
        if job.fine_tuned_model:
            yield from _of_model(client, job.fine_tuned_model)
    else:
        yield from _of_model(client, what)


def _of_file(client: Client, file: FileObject) -> Item:
    return Item(
        name=file.filename,
        sha256=file.sha256,
        fetch=lambda path, told: client.files.download(file.id, path, progress=told),
    )


def _of_model(client: Client, model: str) -> Iterator[Item]:
    for file in client.models.files(model):
        yield Item(name=file.name, sha256=file.sha256, fetch=_fetcher(client, model, file))


def _fetcher(client: Client, model: str, file: ModelFile) -> Callable[[Path, Progress], Path]:
    return lambda path, told: client.models.download(model, file, path, progress=told)


def _fetch(item: Item, path: Path) -> Path:
    if path.exists():
        if item.sha256 is not None and path.is_file() and _sha256(path) == item.sha256:
            return path
        raise typer.BadParameter(
            f"{path} is there already, with another content: move it, or name a folder", param_hint="--to"
        )
    with moving_bar(path.name) as told:
        return item.fetch(path, told)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
