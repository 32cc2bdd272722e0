"""A job as its user writes it: a YAML or JSON file, flags, or flags over a file. Pure but for the file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ibllm_core.contract.submission import JobSubmission
from orchestrator.cli.problems import problems_of

FILE_ID = re.compile(r"file-[0-9a-f]+")
DATA_FIELDS = ("training_file", "validation_file")


class _Loader(yaml.SafeLoader):
    """PyYAML's, to which ``5e-4`` is a number, as it is to YAML 1.2 and to everybody who writes learning rates."""


_SCIENTIFIC = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _SCIENTIFIC, list("-+0123456789"))


class SpecError(Exception):
    """A job that is not written as it has to be; the message has a line for each problem."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the words of ``ibllm submit`` say of a job; None is what they leave to the file, or to the service."""

    model: str | None = None
    encoder: str | None = None
    training_file: str | None = None
    validation_file: str | None = None
    start_from: str | None = None
    suffix: str | None = None
    n_epochs: int | None = None
    priority: str | None = None
    workers: int | None = None
    gpus: float | None = None
    budget: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_spec(path: Path) -> dict[str, Any]:
    """The content of a spec; ``SpecError`` says where it is not YAML."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise SpecError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path} must hold the fields of a job, as `model: …`, but holds {type(content).__name__}")
    return content


def with_flags(spec: Mapping[str, Any], flags: Flags) -> dict[str, Any]:
    """The job of a file, with what the flags say in place of what the file says."""
    body = deepcopy(dict(spec))
    for name in ("model", "encoder", *DATA_FIELDS, "start_from", "suffix", "priority"):
        _put(body, getattr(flags, name), name)
    _put(body, flags.n_epochs, "method", "supervised", "hyperparameters", "n_epochs")
    _put(body, flags.workers, "resources", "workers")
    _put(body, flags.gpus, "resources", "gpus_per_worker")
    _put(body, flags.budget, "budget", "gpu_hours")
    for key, value in flags.metadata.items():
        _put(body, value, "metadata", key)
    return body


def checked(body: Mapping[str, Any], source: str) -> dict[str, Any]:
    """``body``, if it is a job; ``SpecError`` names all problems with their paths, before anything is uploaded."""
    try:
        JobSubmission.model_validate(body)
        json.dumps(body, allow_nan=False)
    except ValidationError as error:
        raise SpecError("\n".join(f"{source}: {problem}" for problem in problems_of(error))) from error
    except (ValueError, TypeError) as error:
        raise SpecError(f"{source}: {error}: use plain, finite values") from error
    return dict(body)


def with_uploads(body: Mapping[str, Any], folder: Path, upload: Callable[[Path], str]) -> dict[str, Any]:
    """The job with ids in place of the files of this machine; relative paths begin at ``folder``.

    Ids, addresses and what is no file here go as they are: the service knows what to make of them.
    """

    def replaced(owner: dict[str, Any], name: str) -> None:
        location = owner.get(name)
        if isinstance(location, str) and (path := local_file(location, folder)):
            owner[name] = upload(path)

    done = deepcopy(dict(body))
    for owner in (done, *done.get("stages", ())):
        for name in DATA_FIELDS:
            replaced(owner, name)
        for share in owner.get("mix", ()):
            replaced(share, "file")
    return done


def local_file(location: str, folder: Path) -> Path | None:
    """The file that a location means on this machine, if it means one."""
    if FILE_ID.fullmatch(location) or "://" in location:
        return None
    path = folder / location
    try:
        return path if path.is_file() else None
    except OSError:  # too long for a path
        return None


def _put(body: dict[str, Any], value: Any, *path: str) -> None:
    if value is None:
        return
    for name in path[:-1]:
        inner = body.setdefault(name, {})
        if not isinstance(inner, dict):
            raise SpecError(f"{name} must hold fields, but is {inner!r:.80}")
        body = inner
    body[path[-1]] = value
