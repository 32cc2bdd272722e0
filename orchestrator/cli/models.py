"""``ibllm models``."""

from __future__ import annotations

import typer

from orchestrator.cli.options import JsonOption
from orchestrator.cli.screen import Column, age, print_json, print_table
from orchestrator.cli.service import ServiceCommand, connect

app = typer.Typer()
MODELS = (
    Column("model", is_whole=True),
    Column("stage", is_whole=True),
    Column("age", is_whole=True),
    Column("job", is_whole=True, is_extra=True),
    Column("sha256", is_whole=True, is_extra=True),
)


@app.command(cls=ServiceCommand)
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List fine-tuned models, newest first, and bases."""
    with connect(context) as client:
        found = client.models.list()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            model.id,
            model.stage or "base",
            age(model.created) if model.stage else "",
            model.job_id or "",
            (model.sha256 or "")[:12],
        )
        for model in found.data
    )
    print_table(MODELS, rows)
