"""What commands print: tables for people and JSON for programs on stdout, all other words on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 120  # columns from which on there is room for what few look at
PIPE_WIDTH = 1000  # programs cut lines by themselves


@dataclass(frozen=True)
class Column:
    """A column of a table: ``is_whole`` is there to be copied, and never broken; ``is_cut`` takes the room there is.

    An extra one is shown where there is much room.
    """

    name: str
    is_whole: bool = False
    is_cut: bool = False
    is_extra: bool = False
    is_number: bool = False


def out() -> Console:
    """The standard output, as wide as its terminal; to a program nothing is cut."""
    is_open = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=PIPE_WIDTH if is_open else None)


def err() -> Console:
    """For progress, hints and errors."""
    return Console(stderr=True, highlight=False)


def say(words: str) -> None:
    """A sentence beside the output."""
    err().print(plain(words), soft_wrap=True)


def say_error(words: str) -> None:
    """What went wrong."""
    err().print(Text.assemble(("error: ", "red"), plain(words)), soft_wrap=True)


def print_json(shape: BaseModel) -> None:
    """A thing as the contract has it."""
    typer.echo(shape.model_dump_json(indent=1))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """A table without lines, of which the terminal has all that it has room for."""
    console = out()
    kept = [index for index, column in enumerate(columns) if not column.is_extra or console.width >= WIDE]
    table = Table(box=None, pad_edge=False)
    for index in kept:
        column = columns[index]
        table.add_column(
            column.name,
            overflow="fold",
            no_wrap=column.is_whole,
            justify="right" if column.is_number else "left",
        )
    for row in rows:
        table.add_row(*(_cell(columns[index], row[index]) for index in kept))
    if title:
        console.print(plain(title))
    console.print(table)


def print_facts(facts: Iterable[tuple[str, str | None]]) -> None:
    """Names and values, a line each; what has no value is left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value:
            table.add_row(name, plain(value))
    out().print(table)


def plain(text: str) -> Text:
    """Words of others: neither markup nor the terminal's control characters."""
    return Text("".join(character if character.isprintable() or character == "\n" else "�" for character in text))


def _cell(column: Column, words: str) -> Text:
    cell = plain(" ".join(words.split()) if column.is_cut else words)
    if column.is_cut:
        cell.no_wrap, cell.overflow = True, "ellipsis"
    return cell


def moment(seconds: float | None) -> str:
    """A time of this machine's zone."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float | None) -> str:
    """How long ago a time is."""
    return "" if seconds is None else span(max(0.0, time.time() - seconds))


def span(seconds: float | None) -> str:
    """A length of time in its largest unit."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(num_bytes: float) -> str:
    """Bytes for people."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.1f} {unit}"
    return f"{num_bytes:.0f} B"
