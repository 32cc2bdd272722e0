"""``ibllm submit``: a job from a file or from flags, with the data it names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ibllm_core.contract.api.jobs import FineTuningJob
from ibllm_core.contract.states import JobStatus
from orchestrator.cli.exits import Exit
from orchestrator.cli.follow import say_detached, say_end
from orchestrator.cli.job_tables import print_estimate
from orchestrator.cli.options import JsonOption, pairs
from orchestrator.cli.screen import err, print_json, say
from orchestrator.cli.service import ServiceCommand, connect
from orchestrator.cli.spec import Flags, checked, local_file, read_spec, with_flags, with_uploads
from orchestrator.cli.uploading import Uploads
from orchestrator.cli.watching import display_on, follow
from orchestrator.client import Client

app = typer.Typer()


@app.command(cls=ServiceCommand)
def submit(
    context: typer.Context,
    spec: Annotated[Path | None, typer.Argument(metavar="SPEC", help="YAML or JSON, as the API takes it")] = None,
    model: Annotated[str | None, typer.Option(help="a base, or a fine-tuned model to start from")] = None,
    training_file: Annotated[str | None, typer.Option(help="a file here, an id, or an s3:// address")] = None,
    validation_file: Annotated[str | None, typer.Option(help="the same, to measure with")] = None,
    encoder: Annotated[str | None, typer.Option(help="of media; else the parent's, or the service's")] = None,
    start_from: Annotated[str | None, typer.Option(help="a model, a job, or a checkpoint")] = None,
    suffix: Annotated[str | None, typer.Option(help="of the new model's name")] = None,
    n_epochs: Annotated[int | None, typer.Option(min=1, help="passes over the data")] = None,
    priority: Annotated[Literal["low", "normal", "high"] | None, typer.Option(help="in the queue")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="ranks of a training run")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="of each worker")] = None,
    budget: Annotated[float | None, typer.Option(help="GPU-hours, after which the job pauses")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="to find the job by")] = None,
    no_upload: Annotated[bool, typer.Option("--no-upload", help="the service itself reads these paths")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would take, and create nothing")] = False,
    is_watched: Annotated[bool, typer.Option("--watch", help="follow the job until it ends")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a job, from a YAML or JSON file, or by flags.

    Flags go before what the file says. Data that is a file here is uploaded first, and checked. The job's id is all
    that is printed to the standard output.
    """
    flags = Flags(
        model=model,
        encoder=encoder,
        training_file=_here(training_file),
        validation_file=_here(validation_file),
        start_from=start_from,
        suffix=suffix,
        n_epochs=n_epochs,
        priority=priority,
        workers=workers,
        gpus=gpus,
        budget=budget,
        metadata=pairs(metadata or [], "--metadata"),
    )
    if spec is None and model is None:
        raise typer.BadParameter("name a spec, or --model and --training-file", param_hint="SPEC")
    body = checked(with_flags(read_spec(spec) if spec else {}, flags), str(spec or "flags"))
    with connect(context) as client:
        if not no_upload:
            body = with_uploads(body, spec.parent if spec else Path(), Uploads(client).id_of)
        if dry_run:
            estimate = client.jobs.estimate(body)
            print_json(estimate) if as_json else print_estimate(estimate)
            return
        job = client.jobs.submit(body)
        if is_watched:
            say(f"{job.id} was submitted")
            job = _watched(client, job.id)
        print_json(job) if as_json else typer.echo(job.id)
        if is_watched:
            say_end(job)
            raise typer.Exit(Exit.DONE if job.status == JobStatus.SUCCEEDED else Exit.FAILED)
        say(f"`ibllm watch {job.id}` follows it")


def _here(location: str | None) -> str | None:
    """A flag's path from its beginning: it is meant from where the command is run, those of a file from the file."""
    path = local_file(location, Path()) if location else None
    return str(path.resolve()) if path else location


def _watched(client: Client, job_id: str) -> FineTuningJob:
    try:
        with display_on(err()) as display:
            return follow(client, job_id, display)
    except KeyboardInterrupt:
        say_detached(job_id)
        raise
