"""``ibllm login``, ``logout``, ``me``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ibllm_core.contract.api.access import Me
from orchestrator.cli.address import Address
from orchestrator.cli.options import JsonOption
from orchestrator.cli.profiles import Profile, ProfileError, profiles_file, read_profiles, write_profiles
from orchestrator.cli.screen import moment, print_facts, print_json, say
from orchestrator.cli.service import ServiceCommand, address, client_of

app = typer.Typer()
DEFAULT_PROFILE = "default"


@app.command()
def login(
    url: Annotated[str | None, typer.Option(help="address of the service; asked for where it is left out")] = None,
    key: Annotated[str | None, typer.Option(help="API key; asked for, and not shown, where it is left out")] = None,
    profile: Annotated[str, typer.Option(help="name to remember them by")] = DEFAULT_PROFILE,
    project: Annotated[str | None, typer.Option(help="where the key has several")] = None,
) -> None:
    """Remember a service and a key, after trying them."""
    url = (url or typer.prompt("address of the service", err=True)).strip()
    key = (key or typer.prompt("API key", hide_input=True, err=True)).strip()
    with client_of(Address(url=url, key=key, project=project, origin="login")) as client:
        me = client.me()
    file = profiles_file(os.environ)
    known = read_profiles(file)
    write_profiles(file, known.with_profile(profile, Profile(url=url, key=key, project=project)))
    say(f"{me.user.name} is logged in to {url} as {me.role}, in {_where(me)}; the key is in {file}")


@app.command()
def logout(
    profile: Annotated[str | None, typer.Option(help="without it the one of the last login")] = None,
) -> None:
    """Forget a service and its key."""
    file = profiles_file(os.environ)
    known = read_profiles(file)
    name = profile or known.current
    if name is None or name not in known.profiles:
        raise ProfileError(f"there is no login {name or ''} to forget; known: {', '.join(known.profiles) or 'none'}")
    write_profiles(file, known.without(name))
    say(f"the profile {name} is forgotten; the key works until it is revoked: `ibllm keys revoke`")


@app.command(cls=ServiceCommand)
def me(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show whose key is used, with which service, and what it may do."""
    found = address(context)
    with client_of(found) as client:
        own, url = client.me(), client.url
    if as_json:
        print_json(own)
        return
    print_facts(
        (
            ("service", f"{url}, from {found.origin}"),
            ("user", f"{own.user.name} ({own.user.id})"),
            ("role", own.role),
            ("organization", f"{own.organization.name} ({own.organization.id})"),
            ("project", f"{own.project.name} ({own.project.id})" if own.project else None),
            ("key", f"{own.key.name} ({own.key.id})"),
            ("expires", moment(own.expires_at)),
            ("may", ", ".join(own.permissions)),
        )
    )


def _where(me: Me) -> str:
    return f"the project {me.project.name}" if me.project else f"the organization {me.organization.name}"
