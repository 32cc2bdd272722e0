"""``ibllm keys``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from ibllm_core.contract.api.access import MAX_KEY_SECONDS, Permission
from ibllm_core.contract.api.keys import KeyCreate, NewKey, ShownKey
from orchestrator.cli.listing import Listing, print_list
from orchestrator.cli.options import AllOption, JsonOption, LimitOption
from orchestrator.cli.screen import Column, age, moment, print_json, say
from orchestrator.cli.service import ServiceCommand, connect, project_of

app = typer.Typer(no_args_is_help=True)
DAY = 86_400
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="id of a key")]


@app.callback()
def keys() -> None:
    """API keys of a project."""


@app.command("ls", cls=ServiceCommand)
def list_keys(
    context: typer.Context, limit: LimitOption = 20, everything: AllOption = False, as_json: JsonOption = False
) -> None:
    """List the project's keys, newest first."""
    with connect(context) as client:
        print_list(
            partial(client.keys.list, project_of(context, client)),
            KEYS,
            limit=limit,
            everything=everything,
            as_json=as_json,
        )


@app.command(cls=ServiceCommand)
def create(
    context: typer.Context,
    name: str,
    user: Annotated[str | None, typer.Option(help="id of a member; without it the key is yours")] = None,
    scope: Annotated[list[Permission] | None, typer.Option(help="what it may do; all that the role may")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=MAX_KEY_SECONDS // DAY, help="until it expires")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key; its value is printed, this once."""
    key = {"name": name, "user_id": user, "scopes": scope, "expires_in_seconds": days and days * DAY}
    with connect(context) as client:
        made = client.keys.create(project_of(context, client), KeyCreate.model_validate(key))
    _print_new(made, as_json=as_json)


@app.command(cls=ServiceCommand)
def rotate(
    context: typer.Context,
    key: KeyArgument,
    grace_hours: Annotated[int, typer.Option(min=0, max=720, help="that the old one works on")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a key's successor; its value is printed, this once."""
    with connect(context) as client:
        made = client.keys.rotate(project_of(context, client), key, grace_seconds=grace_hours * 3600)
    _print_new(made, as_json=as_json)


@app.command(cls=ServiceCommand)
def revoke(context: typer.Context, key: KeyArgument) -> None:
    """Refuse a key from now on."""
    with connect(context) as client:
        say(f"{client.keys.revoke(project_of(context, client), key).id} is revoked")


def _print_new(key: NewKey, *, as_json: bool) -> None:
    print_json(key) if as_json else typer.echo(key.value)
    say(f"{key.id} was made; its value is shown this once")


def _row(key: ShownKey) -> tuple[str, ...]:
    owner = key.owner.user or key.owner.service_account
    return (
        key.id,
        key.redacted_value,
        age(key.last_used_at) or "never",
        moment(key.expires_at)[:10] or "never",
        key.name,
        owner.name if owner else "",
        ", ".join(key.scopes) if key.scopes else "all of the role",
    )


KEYS = Listing(
    what="keys",
    columns=(
        Column("key", is_whole=True),
        Column("value", is_whole=True),
        Column("used", is_whole=True),
        Column("expires", is_whole=True),
        Column("name"),
        Column("owner", is_extra=True),
        Column("scopes", is_extra=True),
    ),
    row=_row,
)
