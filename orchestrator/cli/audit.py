"""``ibllm audit``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from ibllm_core.contract.api.audit import AuditActor, ShownAuditEntry
from orchestrator.cli.listing import Listing, print_list
from orchestrator.cli.options import AllOption, JsonOption, LimitOption
from orchestrator.cli.screen import Column, moment
from orchestrator.cli.service import ServiceCommand, connect

app = typer.Typer()


@app.command(cls=ServiceCommand)
def audit(
    context: typer.Context,
    deed: Annotated[list[str] | None, typer.Option(help="of this type, such as file.created")] = None,
    target: Annotated[list[str] | None, typer.Option(help="done to this id")] = None,
    limit: LimitOption = 20,
    everything: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show who did what in the organisation, newest first."""
    with connect(context) as client:
        fetch = partial(client.audit_log, event_types=deed or (), resource_ids=target or ())
        print_list(fetch, ENTRIES, limit=limit, everything=everything, as_json=as_json)


def _row(entry: ShownAuditEntry) -> tuple[str, ...]:
    project = entry.project.name if entry.project else ""
    return (
        moment(entry.effective_at),
        entry.type,
        entry.target,
        _who(entry.actor),
        project,
        entry.actor.ip_address,
    )


def _who(actor: AuditActor) -> str:
    key = actor.api_key
    if key.user:
        return key.user.email or key.user.id
    return key.service_account.id if key.service_account else key.id


ENTRIES = Listing(
    what="entries",
    columns=(
        Column("time", is_whole=True),
        Column("deed", is_whole=True),
        Column("target"),
        Column("by", is_extra=True),
        Column("project", is_extra=True),
        Column("from", is_extra=True),
    ),
    row=_row,
)
