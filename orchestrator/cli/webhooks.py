"""``ibllm webhooks``."""

from __future__ import annotations

from typing import Annotated

import typer

from ibllm_core.contract.api.webhooks import EventType, ShownWebhook, WebhookCreate
from orchestrator.cli.listing import Listing, print_list
from orchestrator.cli.options import AllOption, JsonOption, LimitOption
from orchestrator.cli.screen import Column, age, print_json, say
from orchestrator.cli.service import ServiceCommand, connect

app = typer.Typer(no_args_is_help=True)
EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="id of an endpoint")]


@app.callback()
def webhooks() -> None:
    """Addresses that are told of a project's jobs."""


@app.command("ls", cls=ServiceCommand)
def list_endpoints(
    context: typer.Context, limit: LimitOption = 20, everything: AllOption = False, as_json: JsonOption = False
) -> None:
    """List the project's endpoints, newest first."""
    with connect(context) as client:
        print_list(client.webhooks.list, ENDPOINTS, limit=limit, everything=everything, as_json=as_json)


@app.command(cls=ServiceCommand)
def create(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="an https address")],
    name: Annotated[str | None, typer.Option(help="what to call it; else its address")] = None,
    event: Annotated[list[EventType] | None, typer.Option(help="to be told of; all of them")] = None,
    as_json: JsonOption = False,
) -> None:
    """Register an address; the secret that signs what it is sent is printed, this once."""
    endpoint = {"name": (name or url)[:200], "url": url, "event_types": event or list(EventType)}
    with connect(context) as client:
        made = client.webhooks.create(WebhookCreate.model_validate(endpoint))
    print_json(made) if as_json else typer.echo(made.signing_secret)
    say(f"{made.id} was made; its secret is shown this once")


@app.command(cls=ServiceCommand)
def delete(context: typer.Context, endpoint: EndpointArgument) -> None:
    """Remove an endpoint; what is on its way to it is given up."""
    with connect(context) as client:
        client.webhooks.delete(endpoint)
    say(f"{endpoint} is removed")


@app.command(cls=ServiceCommand)
def test(
    context: typer.Context,
    endpoint: EndpointArgument,
    event: Annotated[EventType, typer.Option(help="to make an example of")] = EventType.SUCCEEDED,
    as_json: JsonOption = False,
) -> None:
    """Have an example sent now."""
    with connect(context) as client:
        result = client.webhooks.test(endpoint, event)
    print_json(result) if as_json else say(f"{endpoint} answered {result.status_code}")


def _row(endpoint: ShownWebhook) -> tuple[str, ...]:
    error = endpoint.last_error or ""
    return (
        endpoint.id,
        (error or "well") if endpoint.enabled else f"disabled {error}",
        endpoint.url,
        age(endpoint.delivered_at) or "never",
        ", ".join(kind.rpartition(".")[2] for kind in endpoint.event_types),
    )


ENDPOINTS = Listing(
    what="endpoints",
    columns=(
        Column("endpoint", is_whole=True),
        Column("state"),
        Column("url"),
        Column("told", is_extra=True),
        Column("of", is_extra=True),
    ),
    row=_row,
)
