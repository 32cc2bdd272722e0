"""``ibllm data``: training data, here and with the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibllm_core.contract.api.files import FileObject
from orchestrator.cli.data_check import check_data
from orchestrator.cli.listing import Listing, print_list
from orchestrator.cli.options import AllOption, JsonOption, LimitOption
from orchestrator.cli.screen import Column, age, print_json, say, size
from orchestrator.cli.service import ServiceCommand, connect
from orchestrator.cli.uploading import upload

app = typer.Typer(no_args_is_help=True)
app.command("check")(check_data)
FILES: Listing[FileObject] = Listing(
    what="files",
    columns=(
        Column("file", is_whole=True),
        Column("status"),
        Column("size", is_number=True),
        Column("rows", is_number=True),
        Column("age", is_whole=True),
        Column("name"),
        Column("why not", is_extra=True),
    ),
    row=lambda file: (
        file.id,
        file.status,
        size(file.bytes),
        "" if file.rows is None else f"{file.rows:,}",
        age(file.created_at),
        file.filename,
        file.status_details or "",
    ),
)


@app.callback()
def data() -> None:
    """Check, upload, list and remove training data."""


@app.command("upload", cls=ServiceCommand)
def upload_data(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="a file with rows")],
    base: Annotated[str | None, typer.Option(help="base model whose tokenizer counts the samples' tokens")] = None,
    template: Annotated[str | None, typer.Option(help="prompt template that they are counted under")] = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a file and wait for its check; prints its id. What is larger than 64 MB goes in parts."""
    with connect(context) as client:
        file = upload(client, path, base=base, template=template)
    print_json(file) if as_json else typer.echo(file.id)


@app.command("ls", cls=ServiceCommand)
def list_data(
    context: typer.Context, limit: LimitOption = 20, everything: AllOption = False, as_json: JsonOption = False
) -> None:
    """List the project's files, newest first, results of jobs among them."""
    with connect(context) as client:
        print_list(client.files.list, FILES, limit=limit, everything=everything, as_json=as_json)


@app.command("rm", cls=ServiceCommand)
def remove_data(context: typer.Context, file: Annotated[str, typer.Argument(metavar="FILE", help="its id")]) -> None:
    """Remove a file that no open job uses."""
    with connect(context) as client:
        say(f"{client.files.delete(file).id} is removed")
