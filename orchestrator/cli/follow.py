"""``ibllm watch``, ``events``, ``logs``: what a job does, as it does it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Annotated

import typer

from ibllm_core.contract.api.jobs import FineTuningJob, FineTuningJobEvent
from ibllm_core.contract.states import JobStatus, RunKind
from orchestrator.cli.exits import Exit
from orchestrator.cli.job_tables import EVENTS
from orchestrator.cli.listing import print_list
from orchestrator.cli.options import AllOption, JobArgument, JsonOption, LimitOption
from orchestrator.cli.screen import moment, out, plain, say
from orchestrator.cli.service import ServiceCommand, connect, home_of
from orchestrator.cli.watching import JsonLines, display_on, follow
from orchestrator.client import Client, NotFoundError
from orchestrator.local.errors import StackError
from orchestrator.local.home import Home

app = typer.Typer()
JOB_PREFIX = "ftjob-"


@app.command(cls=ServiceCommand)
def watch(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """Follow a job until it ends; Ctrl-C leaves it running."""
    with connect(context) as client:
        try:
            if as_json:
                ended = follow(client, job, JsonLines())
            else:
                with display_on(out()) as display:
                    ended = follow(client, job, display)
        except KeyboardInterrupt:
            say_detached(job)
            raise
    say_end(ended)
    if ended.status != JobStatus.SUCCEEDED:
        raise typer.Exit(Exit.FAILED)


def say_detached(job_id: str) -> None:
    """That a job goes on without anybody who looks."""
    say(f"detached: {job_id} goes on; `ibllm watch {job_id}` looks again, `ibllm cancel {job_id}` ends it")


def say_end(job: FineTuningJob) -> None:
    """How a job that was followed came out."""
    if job.status == JobStatus.SUCCEEDED:
        say(f"{job.id} succeeded: {job.fine_tuned_model}")
    elif job.status == JobStatus.PAUSED:
        say(f"{job.id} is paused: `ibllm resume {job.id}` lets it go on")
    else:
        say(f"{job.id} {job.status}{f': {job.error.message}' if job.error else ''}")


@app.command(cls=ServiceCommand)
def events(
    context: typer.Context,
    job: JobArgument,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="go on until the job ends")] = False,
    limit: LimitOption = 50,
    everything: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what has happened to a job, oldest first."""
    with connect(context) as client:
        if is_followed:
            for event in client.jobs.stream_events(job):
                _print_event(event, as_json=as_json)
            return
        print_list(
            partial(client.jobs.events, job),
            EVENTS,
            limit=limit,
            everything=everything,
            as_json=as_json,
            is_reversed=True,
        )


@app.command(cls=ServiceCommand)
def logs(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB|PART", help="id of a job, or a part as `ibllm status` has it")],
    run: Annotated[RunKind | None, typer.Option(help="of a job; without it the newest that has a log")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, max=100_000, help="of the run; else the newest")] = None,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="go on as more is written")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="of a part: from its end")] = 50,
) -> None:
    """Show the log of a job's run, or of a part of the embedded stack."""
    if not job.startswith(JOB_PREFIX):
        _show_part(home_of(context), job, lines, is_followed=is_followed)
        return
    with connect(context) as client:
        kind = run or _newest_run(client, job)
        for chunk in client.jobs.read_log(job, kind, attempt=attempt, follow=is_followed):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


def _print_event(event: FineTuningJobEvent, *, as_json: bool) -> None:
    if as_json:
        typer.echo(event.model_dump_json())
    else:
        out().print(plain(f"{moment(event.created_at)}  {event.level:<5}  {event.message}"), soft_wrap=True)


def _newest_run(client: Client, job: str) -> RunKind:
    newest = next(iter(client.jobs.logs(job)), None)
    if newest is None:
        raise NotFoundError(
            f"{job} has no log yet: none of its runs has started; `ibllm show {job}` says why", status=404
        )
    return newest.run


def _show_part(home: Home, part: str, lines: int, *, is_followed: bool) -> None:
    path = home.logs / f"{part}.log"
    known = sorted(file.stem for file in path.parent.glob("*.log"))
    if part not in known:
        raise StackError(
            f"{part!r} is neither the id of a job (`ibllm ls` lists them) nor a part of the stack in {home.root}, "
            f"of which there are: {', '.join(known) or 'none'}"
        )
    subprocess.run(["tail", f"--lines={lines}", *(["--follow=name"] if is_followed else []), str(path)], check=False)
