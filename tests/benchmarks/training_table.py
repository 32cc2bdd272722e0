"""Markdown of the training benchmarks: what was run where and when, and tables."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch


def heading(title: str, note: str = "") -> None:
    """A section with the machine, the date and the command."""
    parts = [
        machine(),
        f"torch {torch.__version__}",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        f"`{command()}`",
    ]
    print(f"\n## {title}\n\n{', '.join(parts)}.{f' {note}' if note else ''}\n", flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table whose first column is text, and the others figures."""
    print(f"| {' | '.join(columns)} |")
    print(f"|---|{'---:|' * (len(columns) - 1)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


def machine() -> str:
    """The card, or the processor with its cores and how busy they were in the last minute."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{os.cpu_count()} cores of {model}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"


def command() -> str:
    """As it was typed."""
    module = Path(sys.argv[0]).with_suffix("").name
    return " ".join(["python -m", f"tests.benchmarks.{module}", *sys.argv[1:]])
