"""Which service a command speaks to, and with which key. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.profiles import ProfileError, Profiles

DEFAULT_HOME = Path(".ibllm")
PAIRS = (("IBLLM_URL", "IBLLM_API_KEY"), ("OPENAI_BASE_URL", "OPENAI_API_KEY"))
REMEDY = (
    "no service is known: `ibllm login` to one, set IBLLM_URL and IBLLM_API_KEY, or start one on this machine with "
    "`ibllm up`"
)


class NoServiceError(Exception):
    """Nobody said which service is meant, or not with which key."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the words of a command say."""

    url: str | None = None
    key: str | None = None
    profile: str | None = None
    project: str | None = None
    home: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Address:
    """A service and a key; ``origin`` says in words who named them."""

    url: str
    key: str
    project: str | None = None
    origin: str


Embedded = Callable[[Path], Address | None]


def choose(given: Given, environment: Mapping[str, str], stored: Profiles, embedded: Embedded) -> Address:
    """The words of the command, else the environment, else the last login, else the stack that is up here.

    A key is never sent to another service than the one it was given for. ``NoServiceError`` names what is missing.
    """
    found = (
        _of_words(given, environment, stored, embedded)
        or _of_environment(given, environment)
        or _of_profile(given, stored, stored.current)
        or embedded(Path(environment.get("IBLLM_HOME") or DEFAULT_HOME))
    )
    if found is None:
        raise NoServiceError(REMEDY)
    return found


def _of_words(given: Given, environment: Mapping[str, str], stored: Profiles, embedded: Embedded) -> Address | None:
    if given.url:
        key = given.key or environment.get("IBLLM_API_KEY")
        if not key:
            raise NoServiceError(f"no key is given for {given.url}: add --key, or set IBLLM_API_KEY")
        return Address(url=given.url, key=key, project=given.project, origin="--url")
    if given.profile:
        if given.profile not in stored.profiles:
            known = ", ".join(stored.profiles) or "none"
            raise ProfileError(
                f"there is no profile {given.profile!r} (known: {known}): `ibllm login --profile {given.profile}`"
            )
        return _of_profile(given, stored, given.profile)
    if given.home:
        found = embedded(given.home)
        if found is None:
            raise NoServiceError(f"no stack is up in {given.home.resolve()}: start it with `ibllm up`")
        return found
    return None


def _of_environment(given: Given, environment: Mapping[str, str]) -> Address | None:
    for url_name, key_name in PAIRS:
        url, key = environment.get(url_name), given.key or environment.get(key_name)
        if url and not key:
            raise NoServiceError(f"{url_name} is set, and {key_name} is not: set it too, or give --key")
        if url and key:
            return Address(url=url, key=key, project=given.project, origin=url_name)
    return None


def _of_profile(given: Given, stored: Profiles, name: str | None) -> Address | None:
    profile = stored.profiles.get(name) if name else None
    if profile is None:
        return None
    project = given.project or profile.project
    return Address(url=profile.url, key=given.key or profile.key, project=project, origin=f"profile {name}")
