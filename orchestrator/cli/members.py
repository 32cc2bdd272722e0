"""``ibllm members``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from ibllm_core.contract.api.access import MemberRole
from ibllm_core.contract.api.tenants import MemberCreate, MemberUpdate, ShownMember
from orchestrator.cli.listing import Listing, print_list
from orchestrator.cli.options import AllOption, JsonOption, LimitOption
from orchestrator.cli.screen import Column, age, say
from orchestrator.cli.service import ServiceCommand, connect, project_of

app = typer.Typer(no_args_is_help=True)
RoleOption = Annotated[MemberRole, typer.Option(help="in the project")]
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="id of a user")]
MEMBERS: Listing[ShownMember] = Listing(
    what="members",
    columns=(
        Column("user", is_whole=True),
        Column("role", is_whole=True),
        Column("age", is_whole=True),
        Column("name"),
        Column("email", is_extra=True),
    ),
    row=lambda member: (member.id, member.role, age(member.added_at), member.name, member.email or ""),
)


@app.callback()
def members() -> None:
    """Who may do what in a project."""


@app.command("ls", cls=ServiceCommand)
def list_members(
    context: typer.Context, limit: LimitOption = 20, everything: AllOption = False, as_json: JsonOption = False
) -> None:
    """List the project's members, newest first."""
    with connect(context) as client:
        print_list(
            partial(client.members.list, project_of(context, client)),
            MEMBERS,
            limit=limit,
            everything=everything,
            as_json=as_json,
        )


@app.command(cls=ServiceCommand)
def add(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER|EMAIL", help="a user of the organisation")],
    role: RoleOption = "submitter",
) -> None:
    """Give a user of the organisation a role in the project."""
    who = {"email" if "@" in user else "user_id": user}
    with connect(context) as client:
        added = client.members.add(project_of(context, client), MemberCreate.model_validate({**who, "role": role}))
    say(f"{added.name} ({added.id}) is {added.role} now")


@app.command(cls=ServiceCommand)
def role(context: typer.Context, user: UserArgument, role: Annotated[MemberRole, typer.Argument()]) -> None:
    """Give a member another role; the member's keys follow at once."""
    with connect(context) as client:
        changed = client.members.update(project_of(context, client), user, MemberUpdate(role=role))
    say(f"{changed.name} ({changed.id}) is {changed.role} now")


@app.command(cls=ServiceCommand)
def remove(context: typer.Context, user: UserArgument) -> None:
    """End a membership, and revoke the member's keys for the project."""
    with connect(context) as client:
        say(f"{client.members.remove(project_of(context, client), user).id} is no member any more")
