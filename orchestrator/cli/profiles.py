"""What ``ibllm login`` remembers: services and keys by name, for the owner's eyes alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError


class ProfileError(Exception):
    """The file of profiles cannot be used, or has no such profile."""


class Profile(BaseModel):
    """A service, a key for it, and the project that is meant where the key has several."""

    model_config = ConfigDict(frozen=True)

    url: str
    key: str
    project: str | None = None


class Profiles(BaseModel):
    """All of them; ``current`` is the last that was logged in to."""

    model_config = ConfigDict(frozen=True)

    current: str | None = None
    profiles: dict[str, Profile] = {}

    def with_profile(self, name: str, profile: Profile) -> Profiles:
        """Also this one, which becomes the current one."""
        return Profiles(current=name, profiles={**self.profiles, name: profile})

    def without(self, name: str) -> Profiles:
        """All but this one."""
        current = None if self.current == name else self.current
        return Profiles(current=current, profiles={n: p for n, p in self.profiles.items() if n != name})


def profiles_file(environment: Mapping[str, str]) -> Path:
    """``~/.config/ibllm/config.json``, or where the environment has such files."""
    root = environment.get("XDG_CONFIG_HOME")
    return (Path(root) if root else Path.home() / ".config") / "ibllm" / "config.json"


def read_profiles(file: Path) -> Profiles:
    """The profiles of a file; none where there is no file."""
    try:
        return Profiles.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Profiles()
    except (OSError, ValidationError) as error:
        raise ProfileError(f"{file} cannot be read ({type(error).__name__}): remove it, and `ibllm login`") from error


def write_profiles(file: Path, profiles: Profiles) -> None:
    """Replace the file; nobody but its owner can read it at any moment."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(profiles.model_dump_json(indent=1) + "\n")
        new.replace(file)
    except OSError as error:
        raise ProfileError(f"{file} cannot be written ({error.strerror}): free its folder's rights") from error
