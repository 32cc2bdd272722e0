"""What an upload holds, told before a job pays for it."""

from __future__ import annotations

import hashlib
import tempfile
import traceback
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ibllm_core.contract import layout
from ibllm_core.contract.templates import TEMPLATE_NAMES
from ibllm_core.errors import InvalidDataError, InvalidWeightsError, ObjectMissingError, StorageError
from ibllm_core.formats.check import Report, check
from ibllm_core.formats.dataset import open_dataset
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.formats.sources import StoreSource
from ibllm_core.formats.token_count import CountTokens, token_counter
from ibllm_core.storage import ObjectStore
from orchestrator.errors import InvalidRequestError
from orchestrator.jobs.catalogue import Catalogue

SHOWN_PROBLEMS = 3
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A file to be checked, as it was claimed at ``claimed_at``; ``tries`` counts this claim.

    ``data_prefixes`` are the addresses that its project's jobs may read.
    """

    file_id: str
    key: str
    filename: str
    has_sha256: bool
    count_with: dict[str, Any] | None
    data_prefixes: tuple[str, ...]
    claimed_at: datetime
    tries: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a check. ``problem`` says why a job would refuse the file; ``trace`` is the operator's to read.

    ``outage`` is what kept the check from being done, which another try may find mended.
    """

    report: Report | None = None
    sha256: str | None = None
    problem: str | None = None
    trace: str | None = None
    outage: str | None = None


def counting(store: ObjectStore, base: str | None, template: str) -> dict[str, Any] | None:
    """With what a check counts tokens, as files keep it; None without a base.

    ``InvalidRequestError`` for an unknown base or template, and for a base without a tokenizer that tells lengths.
    """
    if template not in TEMPLATE_NAMES:
        raise InvalidRequestError(
            f"template must be one of {', '.join(TEMPLATE_NAMES)}, but is {template!r}", param="template"
        )
    if base is None:
        return None
    Catalogue(store).require_base(base, param="base")
    if TOKENIZER_FILES[0] not in store.manifest(layout.base(base))["files"]:
        raise InvalidRequestError(_uncountable(base), param="base")
    return {"base": base, "template": template}


def verdict_of(store: ObjectStore, task: Task) -> Verdict:
    """Check a file; whatever it does to the reader, there is a verdict."""
    try:
        verdict = _verdict(store, task)
        return verdict if task.has_sha256 else replace(verdict, sha256=_sha256(store, task.key))
    except ObjectMissingError:
        return Verdict(problem="its bytes are not in the object store: upload it again")
    except StorageError as error:
        return Verdict(outage=error.message)
    except MemoryError:
        return Verdict(
            problem="reading it takes more memory than a check may have: save Parquet with smaller row groups, JSON as "
            "JSON Lines, or split the file"
        )
    except Exception as error:
        return unforeseen(type(error).__name__, traceback.format_exc())


def unforeseen(what: str, trace: str) -> Verdict:
    """The verdict on a file that met a defect of ours."""
    return Verdict(
        problem=f"the check met something that nobody foresaw ({what}): save the data anew, or in another format, and "
        "tell the operator, whose log has the details under this file's id",
        trace=trace,
    )


def _verdict(store: ObjectStore, task: Task) -> Verdict:
    source = StoreSource(settings=store.settings, key=task.key, name=task.filename)
    try:
        count_tokens = _counter(store, **task.count_with) if task.count_with else None
        fetcher = Fetcher(source, data_prefixes=task.data_prefixes)
        report = check(open_dataset(source), count_tokens=count_tokens, check_media=fetcher.check)
    except (InvalidDataError, InvalidRequestError) as error:
        return Verdict(problem=error.message)
    return Verdict(report=report, problem=None if report.is_usable else _problem(report))


def _counter(store: ObjectStore, base: str, template: str) -> CountTokens:
    """Fetches the tokenizer, without the weights."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = store.download_folder(layout.base(base), Path(folder), wanted=TOKENIZER_FILES.__contains__)
            return token_counter(path / TOKENIZER_FILES[0], template)
        except (InvalidWeightsError, ObjectMissingError) as error:
            raise InvalidRequestError(_uncountable(base), param="base") from error


def _uncountable(base: str) -> str:
    return (
        f"lengths cannot be counted with base {base!r}, which has no usable tokenizer.json with an eos_token: leave "
        "base out, or bring it in under a new name with its whole tokenizer"
    )


def _problem(report: Report) -> str:
    reasons = "; ".join(f"row {bad.row}: {bad.reason}" for bad in report.first_bad[:SHOWN_PROBLEMS])
    return f"{report.bad_rows} of {report.rows} rows cannot be used (limit {report.bad_share_limit:.0%}): {reasons}"


def _sha256(store: ObjectStore, key: str) -> str:
    digest = hashlib.sha256()
    for chunk in store.stream(key):
        digest.update(chunk)
    return digest.hexdigest()
