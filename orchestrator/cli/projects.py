"""``ibllm projects``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ibllm_core.contract.api.tenants import ProjectCreate, ProjectUpdate, ShownProject, ShownUsage
from orchestrator.cli.listing import Listing, print_list
from orchestrator.cli.options import AllOption, JsonOption, LimitOption
from orchestrator.cli.screen import Column, age, moment, print_facts, print_json, print_table, say, size
from orchestrator.cli.service import ServiceCommand, connect, project_of

app = typer.Typer(no_args_is_help=True)
ProjectArgument = Annotated[str | None, typer.Argument(metavar="[PROJECT]", help="without it the key's own")]
PROJECTS: Listing[ShownProject] = Listing(
    what="projects",
    columns=(Column("project", is_whole=True), Column("status"), Column("age", is_whole=True), Column("name")),
    row=lambda project: (project.id, project.status, age(project.created_at), project.name),
)
QUOTAS = (Column("quota"), Column("used", is_number=True), Column("of", is_number=True))
NO_LIMIT = "none"
Quota = Annotated[str | None, typer.Option(metavar="NUMBER|none", help="none: no limit")]


@app.callback()
def projects() -> None:
    """Projects, what they use and what they may."""


@app.command("ls", cls=ServiceCommand)
def list_projects(
    context: typer.Context, limit: LimitOption = 20, everything: AllOption = False, as_json: JsonOption = False
) -> None:
    """List the organisation's projects, newest first."""
    with connect(context) as client:
        print_list(client.projects.list, PROJECTS, limit=limit, everything=everything, as_json=as_json)


@app.command(cls=ServiceCommand)
def create(context: typer.Context, name: str, as_json: JsonOption = False) -> None:
    """Make a project; prints its id. Quotas, members and keys are given afterwards."""
    with connect(context) as client:
        made = client.projects.create(ProjectCreate.model_validate({"name": name}))
    print_json(made) if as_json else typer.echo(made.id)


@app.command(cls=ServiceCommand)
def show(context: typer.Context, project: ProjectArgument = None, as_json: JsonOption = False) -> None:
    """Show a project, what it uses, and what it may."""
    with connect(context) as client:
        project_id = project or project_of(context, client)
        usage = client.projects.usage(project_id)
        if as_json:
            print_json(usage)
            return
        found = client.projects.retrieve(project_id)
    print_facts(
        (
            ("project", found.id),
            ("name", found.name),
            ("status", found.status),
            ("created", moment(found.created_at)),
            ("may read", ", ".join(found.data_prefixes)),
        )
    )
    print_table(QUOTAS, _usage_rows(usage), title="\nquotas")


@app.command(cls=ServiceCommand)
def quota(
    context: typer.Context,
    project: ProjectArgument = None,
    max_gpus: Quota = None,
    gpu_hours_per_month: Quota = None,
    max_queued_jobs: Quota = None,
    max_storage_bytes: Quota = None,
    requests_per_minute: Quota = None,
) -> None:
    """Set a project's quotas; what is left out stays as it is."""
    given = {
        "max_gpus": max_gpus,
        "gpu_hours_per_month": gpu_hours_per_month,
        "max_queued_jobs": max_queued_jobs,
        "max_storage_bytes": max_storage_bytes,
        "requests_per_minute": requests_per_minute,
    }
    changes = {name: _number(name, words) for name, words in given.items() if words is not None}
    if not changes:
        raise typer.BadParameter("name a quota to set; `ibllm projects show` shows them", param_hint="--max-gpus ...")
    with connect(context) as client:
        updated = client.projects.update(project or project_of(context, client), ProjectUpdate.model_validate(changes))
    say(f"{updated.id}: " + ", ".join(f"{name} is {given[name]}" for name in changes))


def _number(name: str, words: str) -> float | None:
    """A quota as its words have it; the contract says what fits."""
    if words == NO_LIMIT:
        return None
    try:
        number = float(words)
    except ValueError as error:
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"{words!r} is neither a number nor {NO_LIMIT!r}", param_hint=option) from error
    return int(number) if number.is_integer() else number


def _usage_rows(usage: ShownUsage) -> list[tuple[str, str, str]]:
    may = usage.quotas
    return [
        ("GPUs at once", f"{usage.gpus:g}", _limit(may.max_gpus)),
        ("GPU-hours this month", f"{usage.gpu_hours:.2f}", _limit(may.gpu_hours_per_month)),
        ("queued jobs", f"{usage.queued_jobs:,}", _limit(may.max_queued_jobs)),
        ("storage", size(usage.storage_bytes), _limit(may.max_storage_bytes, size)),
        ("requests a minute", "", _limit(may.requests_per_minute)),
    ]


def _limit(limit: float | None, shown: Callable[[float], str] = "{:,g}".format) -> str:
    return "no limit" if limit is None else shown(limit)
