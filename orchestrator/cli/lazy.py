"""A group whose commands are loaded when they are run, so that help and completion come at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A panel of the help: each command's module and summary, which is the command's own first line."""

    name: str
    commands: Mapping[str, tuple[str, str]]


class Stub(TyperCommand):
    """What is known of a command that is not loaded."""

    def __init__(self, name: str, module: str, summary: str, chapter: str) -> None:
        super().__init__(name, help=summary, rich_help_panel=chapter)
        self.module = module


class LazyGroup(TyperGroup):
    """Shows stubs, and runs what they stand for."""

    stubs: ClassVar[dict[str, Stub]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands.update(self.stubs)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that words ask for, loaded."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(command) if isinstance(command, Stub) else command, rest


def stubs(chapters: Iterable[Chapter]) -> dict[str, Stub]:
    """All commands of a table of contents by name."""
    return {
        name: Stub(name, module, summary, chapter.name)
        for chapter in chapters
        for name, (module, summary) in chapter.commands.items()
    }


def load(stub: Stub) -> Any:
    """The command of its name in the module's ``app``, or the ``app`` itself, where that is the group of this name."""
    group = get_group(import_module(stub.module).app)
    return group.commands.get(str(stub.name), group)
