"""What a page says, for tests that hold it against the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return [found[2] for found in BLOCK.finditer(text) if found[1] == language]


def block_after(text: str, words: str) -> str:
    """The first fenced block behind some words, which must be there once."""
    assert text.count(words) == 1
    found = BLOCK.search(text, text.index(words))
    assert found
    return found[2]


def table(text: str, first_column: str) -> Iterator[list[str]]:
    """The cells of each row of the one table whose first column has this name."""
    head = f"| {first_column} |"
    assert text.count(f"\n{head}") == 1
    lines = text[text.index(f"\n{head}") :].split("\n\n", maxsplit=1)[0].strip().splitlines()
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]
