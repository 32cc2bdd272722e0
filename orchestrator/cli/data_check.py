"""``ibllm data check``: what a job would find in training data, told before a GPU is asked for. Needs no stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.contract.templates import TEMPLATE_NAMES
from ibllm_core.errors import CoreError, InvalidDataError, InvalidWeightsError
from ibllm_core.formats.check import Report, check
from ibllm_core.formats.dataset import open_dataset
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.formats.source import Source
from ibllm_core.formats.sources import open_source
from ibllm_core.formats.token_count import CountTokens, token_counter
from ibllm_core.settings import StorageSettings
from orchestrator.cli.address import DEFAULT_HOME
from orchestrator.cli.data_report import print_report
from orchestrator.cli.options import HomeOption, JsonOption
from orchestrator.cli.screen import print_json, say_error
from orchestrator.local.home import Home
from orchestrator.local.parts import service_environment

ROW_TOKENS: int = Hyperparameters().row_tokens


def check_data(
    location: Annotated[str, typer.Argument(help="a file, a folder, or s3://bucket/key-or-prefix")],
    base: Annotated[
        str | None, typer.Option(help="folder with tokenizer.json, or a base that this machine's stack has used")
    ] = None,
    template: Annotated[str, typer.Option(help=f"prompt template: {', '.join(TEMPLATE_NAMES)}")] = "alpaca",
    row_tokens: Annotated[int, typer.Option(min=1, help="hyperparameters.row_tokens of the job")] = ROW_TOKENS,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Read a dataset once: rows, media, lengths, duplicates, bad rows; exits with 1 where a job would refuse it."""
    source = _source(location, home)
    count_tokens, context = _counter(base, template, home) if base else (None, None)
    try:
        report = _checked(source, count_tokens, row_tokens, context)
    except CoreError as error:
        say_error(error.message)
        raise typer.Exit(1) from error
    if as_json:
        print_json(report)
    else:
        print_report(report, Console(highlight=False), row_tokens=row_tokens, context=context)
    if not report.is_usable:
        raise typer.Exit(1)


def _source(location: str, home: Path) -> Source:
    try:
        settings = _storage(home) if location.startswith("s3://") else None
        return open_source(location, settings=settings, allow_local=True)
    except InvalidDataError as error:
        raise typer.BadParameter(error.message, param_hint="LOCATION") from error


def _storage(home: Path) -> StorageSettings | None:
    """The store that the environment names, else that of the stack in ``home``, else none."""
    try:
        return StorageSettings()
    except ValidationError:
        if not Home(home).ports_file.exists():
            return None
    environment = service_environment(Home(home))
    return StorageSettings(
        endpoint=environment["IBLLM_S3_ENDPOINT"],
        bucket=environment["IBLLM_S3_BUCKET"],
        access_key=environment["IBLLM_S3_ACCESS_KEY"],
        secret_key=environment["IBLLM_S3_SECRET_KEY"],
    )


def _counter(base: str, template: str, home: Path) -> tuple[CountTokens, int | None]:
    """What counts tokens, and the base's context where its config names one."""
    if template not in TEMPLATE_NAMES:
        raise typer.BadParameter(
            f"there is no template {template!r}; choose one of {', '.join(TEMPLATE_NAMES)}", param_hint="--template"
        )
    folder = _base_folder(base, home)
    try:
        config = json.loads((folder / "config.json").read_bytes()) if (folder / "config.json").exists() else {}
        return token_counter(folder / "tokenizer.json", template), config.get("max_position_embeddings")
    except (InvalidWeightsError, ValueError) as error:
        raise typer.BadParameter(f"{folder}: {error}", param_hint="--base") from error


def _base_folder(base: str, home: Path) -> Path:
    cached = Home(home).cache / layout.base(base)
    for folder in (Path(base), cached):
        if (folder / "tokenizer.json").is_file():
            return folder
    raise typer.BadParameter(
        f"neither {base} nor {cached} has a tokenizer.json: name a folder that has one, or a base with which a job ran "
        "on this machine",
        param_hint="--base",
    )


def _checked(source: Source, count_tokens: CountTokens | None, row_tokens: int, context: int | None) -> Report:
    fetcher = Fetcher(source)
    with Console(stderr=True).status("reading") as status:
        return check(
            open_dataset(source),
            count_tokens=count_tokens,
            row_tokens=row_tokens,
            context=context,
            check_media=fetcher.check,
            tell=lambda num_rows: status.update(f"{num_rows:,} rows"),
        )
