"""What an upload holds, told before a job pays for it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ibllm_core.contract import layout
from ibllm_core.contract.templates import TEMPLATE_NAMES
from ibllm_core.errors import InvalidDataError, InvalidWeightsError
from ibllm_core.formats.check import Report, check
from ibllm_core.formats.dataset import open_dataset
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.formats.sources import StoreSource
from ibllm_core.formats.token_count import CountTokens, token_counter
from ibllm_core.storage import ObjectStore
from orchestrator.api.bases import require_base
from orchestrator.errors import InvalidRequestError

SHOWN_PROBLEMS = 3
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The report of a file that could be read; ``problem`` says why a job would refuse it."""

    report: Report | None
    problem: str | None


def open_counter(store: ObjectStore, base: str | None, template: str) -> CountTokens | None:
    """What counts the samples' lengths as a base will see them under a template; None without a base.

    The base's tokenizer is fetched without the weights. ``InvalidRequestError`` for an unknown base or template.
    """
    if template not in TEMPLATE_NAMES:
        raise InvalidRequestError(
            f"template must be one of {', '.join(TEMPLATE_NAMES)}, but is {template!r}", param="template"
        )
    if not base:
        return None
    require_base(store, base, param="base")
    with tempfile.TemporaryDirectory() as folder:
        path = store.download_folder(layout.base(base), Path(folder), wanted=TOKENIZER_FILES.__contains__)
        try:
            return token_counter(path / "tokenizer.json", template)
        except InvalidWeightsError as error:
            raise InvalidRequestError(
                f"lengths cannot be counted with base {base!r}, which has no usable tokenizer.json with an eos_token: "
                "leave base out, or bring it in under a new name with its whole tokenizer",
                param="base",
            ) from error


def check_upload(store: ObjectStore, key: str, filename: str, count_tokens: CountTokens | None) -> Found:
    """Read an upload once, as the compile run will."""
    source = StoreSource(settings=store.settings, key=key, name=filename)
    try:
        report = check(open_dataset(source), count_tokens=count_tokens, check_media=Fetcher(source).check)
    except InvalidDataError as error:
        return Found(report=None, problem=error.message)
    return Found(report=report, problem=None if report.is_usable else _problem(report))


def _problem(report: Report) -> str:
    reasons = "; ".join(f"row {bad.row}: {bad.reason}" for bad in report.first_bad[:SHOWN_PROBLEMS])
    return f"{report.bad_rows} of {report.rows} rows cannot be used (limit {report.bad_share_limit:.0%}): {reasons}"
