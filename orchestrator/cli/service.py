"""Commands that speak to a service: the options that all of them take, and the client that comes of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from orchestrator.cli.address import DEFAULT_HOME, Address, Given, choose
from orchestrator.cli.profiles import profiles_file, read_profiles
from orchestrator.client import Client
from orchestrator.local.home import Home

PANEL = "Service"
PREFIX = "service_"
COMPLETION_SECONDS = 2.0
SHOWN_IDS = 50


class ServiceCommand(TyperCommand):
    """A command on a service, which it may be told of in its words."""

    def __init__(self, name: str | None, *, params: list[Any] | None = None, **options: Any) -> None:
        super().__init__(name, params=[*(params or []), *get_command(_shared).params], **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, with ``ctx.obj`` for what the shared options say."""
        ctx.obj = _given(ctx)
        ctx.params = {name: value for name, value in ctx.params.items() if not name.startswith(PREFIX)}
        return super().invoke(ctx)


def connect(context: typer.Context) -> Client:
    """The client of the service that a command is for."""
    return client_of(address(context))


def address(context: typer.Context) -> Address:
    """The service that a command is for."""
    return choose(context.obj, os.environ, read_profiles(profiles_file(os.environ)), embedded)


def client_of(found: Address, **options: Any) -> Client:
    """A client for an address."""
    return Client(found.url, found.key, project=found.project, **options)


def project_of(context: typer.Context, client: Client) -> str:
    """The project that a command is about: the one named, else that of the key."""
    named = address(context).project
    if named:
        return named
    own = client.me().project
    if own is None:
        raise typer.BadParameter("this key has no project of its own: name one", param_hint="--project")
    return own.id


def home_of(context: typer.Context) -> Home:
    """The data folder of the embedded stack that a command is about."""
    return Home((context.obj.home or Path(os.environ.get("IBLLM_HOME") or DEFAULT_HOME)).resolve())


def embedded(root: Path) -> Address | None:
    """The stack of a data folder, where it is up."""
    home = Home(root.resolve())
    if not home.ports_file.exists():
        return None
    from orchestrator.local.supervisor import Supervisor  # slow to load, and needed by few

    if not Supervisor(home).is_running():
        return None
    url = f"http://127.0.0.1:{home.ports()['api']}"
    return Address(url=url, key=home.credentials()["api_key"], origin=f"the embedded stack in {home.root}")


def complete_job(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of jobs, with what there is to say of each, for the shell; nothing where the service does not answer."""
    try:
        found = choose(_given(ctx), os.environ, read_profiles(profiles_file(os.environ)), embedded)
        with client_of(found, timeout=COMPLETION_SECONDS, max_retries=0) as client:
            jobs = client.jobs.list(limit=SHOWN_IDS)
            return [(job.id, f"{job.status} {job.model}") for job in jobs if job.id.startswith(incomplete)]
    except Exception:  # a shell has no place for a sentence
        return []


_shared = typer.Typer(add_completion=False)


@_shared.command()
def _options(
    service_url: Annotated[str | None, typer.Option("--url", help="address of it", rich_help_panel=PANEL)] = None,
    service_key: Annotated[str | None, typer.Option("--key", help="API key", rich_help_panel=PANEL)] = None,
    service_profile: Annotated[
        str | None, typer.Option("--profile", help="of `ibllm login`", rich_help_panel=PANEL)
    ] = None,
    service_project: Annotated[
        str | None, typer.Option("--project", help="where the key has several", rich_help_panel=PANEL)
    ] = None,
    service_home: Annotated[
        Path | None, typer.Option("--home", help="embedded stack's folder", rich_help_panel=PANEL)
    ] = None,
) -> None:
    """What every command on a service takes, under names that no command has for its own."""


def _given(ctx: Any) -> Given:
    return Given(**{name: ctx.params.get(PREFIX + name) for name in Given.__dataclass_fields__})
