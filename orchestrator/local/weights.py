"""Bringing a base model or an encoder's weights into the stack's object store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.local.errors import StackError


def import_base(name: str, source: Path, environment: dict[str, str]) -> str:
    """Import a base under a name; returns what was done."""
    _check_exists(source, "a folder with safetensors and a tokenizer, a GGUF file, or Meta's folder of .pth files")
    return _run("workers.import_base", f"the base model {name}", [name, str(source)], environment)


def import_encoder(name: str, source: Path, environment: dict[str, str]) -> str:
    """Import the weights of the encoder of a name; returns what was done."""
    _check_exists(source, "ImageBind's released .pth, or the folder with an encoder's weights")
    return _run("workers.import_encoder", f"the encoder {name}", [name, str(source)], environment)


def _check_exists(source: Path, expected: str) -> None:
    if not source.exists():
        raise StackError(f"{source} does not exist: give {expected}")


def _run(entry: str, what: str, words: list[str], environment: dict[str, str]) -> str:
    """Run a worker's entry in a process of its own: reading weights needs torch, which the service does not know."""
    command = [sys.executable, "-m", entry, *words]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if result.returncode:
        raise StackError(f"{what} could not be brought in: {result.stderr.strip()[-1000:]}")
    return result.stdout.strip()
