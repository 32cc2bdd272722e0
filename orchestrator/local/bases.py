"""Bringing a base model into the stack's object store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.local.errors import StackError

ENTRY = "workers.import_base"


def import_base(name: str, source: Path, environment: dict[str, str]) -> str:
    """Import a safetensors folder or a GGUF file under a name; returns what was done.

    In a process of its own: reading a model needs torch, which the service does not know.
    """
    if not source.exists():
        raise StackError(f"{source} does not exist: give a folder with safetensors and a tokenizer, or a GGUF file")
    command = [sys.executable, "-m", ENTRY, name, str(source)]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if result.returncode:
        raise StackError(f"the base model {name} could not be brought in: {result.stderr.strip()[-1000:]}")
    return result.stdout.strip()
