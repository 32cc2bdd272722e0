"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.service import complete_job

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="id of a job", autocompletion=complete_job)]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="at most so many")]
AllOption = Annotated[bool, typer.Option("--all", help="all there are")]
HomeOption = Annotated[Path, typer.Option("--home", envvar="IBLLM_HOME", help="data folder of the embedded stack")]


def pairs(words: list[str], option: str) -> dict[str, str]:
    """``k=v`` words as a dictionary."""
    found = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not (key and separator):
            raise typer.BadParameter(f"{word!r} is no pair: write key=value", param_hint=option)
        found[key] = value
    return found
