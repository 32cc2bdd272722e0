"""``ibllm ls``, ``show``, ``checkpoints``, ``cancel``, ``pause``, ``resume``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import typer

from ibllm_core.contract.api.jobs import FineTuningJob
from ibllm_core.contract.states import JobStatus
from orchestrator.cli import job_tables
from orchestrator.cli.listing import print_list
from orchestrator.cli.options import AllOption, JobArgument, JsonOption, LimitOption, pairs
from orchestrator.cli.screen import print_json, say
from orchestrator.cli.service import ServiceCommand, connect

app = typer.Typer()


@app.command(cls=ServiceCommand)
def ls(
    context: typer.Context,
    status: Annotated[list[JobStatus] | None, typer.Option(help="of this status; several may be given")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="with this pair")] = None,
    limit: LimitOption = 20,
    everything: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first, and where each one is."""
    wanted = pairs(metadata or [], "--metadata")
    with connect(context) as client:

        def fetch(*, limit: int | None) -> Iterator[FineTuningJob]:
            if not status:
                return client.jobs.list(metadata=wanted, limit=limit)
            return (job for job in client.jobs.list(metadata=wanted) if job.status in status)

        print_list(fetch, job_tables.JOBS, limit=limit, everything=everything, as_json=as_json)


@app.command(cls=ServiceCommand)
def show(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """Show a job and its runs."""
    with connect(context) as client:
        found = client.jobs.retrieve(job)
    if as_json:
        print_json(found)
    else:
        job_tables.print_job(found)


@app.command(cls=ServiceCommand)
def checkpoints(
    context: typer.Context,
    job: JobArgument,
    limit: LimitOption = 20,
    everything: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """List a job's checkpoints, newest first."""
    with connect(context) as client:
        fetch = partial(client.jobs.checkpoints, job)
        print_list(fetch, job_tables.CHECKPOINTS, limit=limit, everything=everything, as_json=as_json)


@app.command(cls=ServiceCommand)
def cancel(context: typer.Context, job: JobArgument) -> None:
    """Cancel a job; what runs saves its step first."""
    with connect(context) as client:
        say(f"{client.jobs.cancel(job).id} is being cancelled")


@app.command(cls=ServiceCommand)
def pause(context: typer.Context, job: JobArgument) -> None:
    """Pause a job; what runs saves its step and lets its workers go."""
    with connect(context) as client:
        paused = client.jobs.pause(job)
    say(f"{paused.id} is being paused; `ibllm resume {paused.id}` lets it go on")


@app.command(cls=ServiceCommand)
def resume(
    context: typer.Context,
    job: JobArgument,
    budget: Annotated[
        float | None, typer.Option(min=0.0, max=1e9, help="GPU-hours that the job may use in all, from now on")
    ] = None,
) -> None:
    """Let a paused job go on from its newest checkpoint."""
    if budget == 0:
        raise typer.BadParameter("a budget is more than no GPU-hours", param_hint="--budget")
    with connect(context) as client:
        say(f"{client.jobs.resume(job, gpu_hours=budget).id} goes on")
