"""The ``ibllm`` command: the embedded stack, the demo, and the service's resources."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ibllm_core.contract.adapter_config import FusionKind
from orchestrator.cli import data, resources
from orchestrator.cli.client import Client, ClientError
from orchestrator.demo.packages import PackageError
from orchestrator.local.errors import StackError
from orchestrator.local.parts import service_environment
from orchestrator.local.stack import Stack
from orchestrator.local.weights import import_base, import_encoder

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Fine-tune ImageBind-LLM as a service.")
console = Console(highlight=False)
app.add_typer(data.app, name="data")
HomeOption = Annotated[Path, typer.Option("--home", envvar="IBLLM_HOME", help="data folder of the embedded stack")]
DEFAULT_HOME = Path(".ibllm")
INTERRUPTED = 130


def main() -> None:
    """Run the command; what a user can mend is one sentence and exit status 1, Ctrl-C is 130."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)
    try:
        code = app(standalone_mode=False)  # an exit status, where a command ended with typer.Exit or by Ctrl-C
    except (StackError, ClientError, PackageError) as error:
        console.print(f"[red]error:[/red] {error}", soft_wrap=True)
        sys.exit(1)
    except Exception as error:
        # typer's own usage errors know how to show themselves; anything else is a defect and keeps its trace.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
    if code == INTERRUPTED:
        console.print("[yellow]interrupted[/yellow]")
    sys.exit(code or 0)


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@app.command()
def up(home: HomeOption = DEFAULT_HOME) -> None:
    """Start the embedded stack, and wait until every part is healthy."""
    stack = Stack(home)
    stack.up(console.print)
    environment = service_environment(stack.home)
    console.print(
        f"the API is at {environment['IBLLM_SERVICE_URL']}/v1, its key in {stack.home.credentials_file}", soft_wrap=True
    )


@app.command()
def down(home: HomeOption = DEFAULT_HOME) -> None:
    """Stop everything; the data stays."""
    Stack(home).down()
    console.print("everything is stopped; `ibllm up` resumes with all data")


@app.command()
def status(home: HomeOption = DEFAULT_HOME) -> None:
    """Show each part's address, process, health and memory; exits with 1 where a part is not healthy."""
    parts = Stack(home).status()
    table = Table(box=None, pad_edge=False)
    for column in ("part", "address", "pid", "state", "health", "memory"):
        table.add_column(column)
    for part in parts:
        health = "[green]healthy[/green]" if part.healthy else "[red]not healthy[/red]"
        memory = f"{part.memory / 1e6:.0f} MB" if part.memory else "-"
        table.add_row(part.name, part.address, str(part.pid or "-"), part.state, health, memory)
    console.print(table)
    if not all(part.healthy for part in parts):
        raise typer.Exit(1)


@app.command()
def logs(
    part: str,
    home: HomeOption = DEFAULT_HOME,
    lines: Annotated[int, typer.Option("--lines", "-n")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
) -> None:
    """Show the end of a part's log."""
    path = Stack(home).home.logs / f"{part}.log"
    if not path.exists():
        known = sorted(file.stem for file in path.parent.glob("*.log"))
        raise StackError(f"there is no log of {part!r}; there are: {', '.join(known) or 'none'}")
    subprocess.run(["tail", f"--lines={lines}", *(["--follow=name"] if follow else []), str(path)], check=False)


@app.command()
def env(home: HomeOption = DEFAULT_HOME) -> None:
    """Print the stack's addresses and keys as shell exports: `eval "$(ibllm env)"`."""
    stack = Stack(home)
    if not stack.home.ports_file.exists():
        raise StackError(f"there is no stack in {stack.home.root}: start one with `ibllm up`")
    values = service_environment(stack.home)
    shown = {
        **{key: values[key] for key in values if key.startswith(("IBLLM_S3", "IBLLM_API", "IBLLM_SERV", "MLFLOW_TR"))},
        "OPENAI_BASE_URL": values["IBLLM_SERVICE_URL"] + "/v1",
        "OPENAI_API_KEY": values["IBLLM_API_KEY"],
        "AWS_ACCESS_KEY_ID": values["IBLLM_S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": values["IBLLM_S3_SECRET_KEY"],
        "AWS_ENDPOINT_URL_S3": values["IBLLM_S3_ENDPOINT"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": values["RAY_AUTH_TOKEN_PATH"],
        "RAY_API_SERVER_ADDRESS": values["IBLLM_RAY_DASHBOARD_URL"],
    }
    for key, value in shown.items():
        typer.echo(f"export {key}={value}")


@app.command()
def demo(
    home: HomeOption = DEFAULT_HOME,
    small: Annotated[bool, typer.Option(help="a minute of training: shows the way, proves nothing")] = False,
    fusion: Annotated[FusionKind, typer.Option(help="how the picture meets the layers")] = "token_add",
) -> None:
    """Run the whole mission on real data, and write the report; leaves the stack up when it succeeds."""
    from orchestrator.demo.run import run_demo

    raise typer.Exit(run_demo(Stack(home), console, small=small, fusion=fusion))


@app.command("import-base")
def bring_base(name: str, source: Path, home: HomeOption = DEFAULT_HOME) -> None:
    """Bring a base model into the object store: a safetensors folder, a GGUF file, or Meta's folder of .pth files."""
    _client(home)  # a clear word where no stack is up
    console.print(import_base(name, source, service_environment(Stack(home).home)))


@app.command("import-encoder")
def bring_encoder(name: str, source: Path, home: HomeOption = DEFAULT_HOME) -> None:
    """Bring an encoder's weights into the object store: for imagebind a released .pth, else the encoder's folder."""
    _client(home)
    console.print(import_encoder(name, source, service_environment(Stack(home).home)))


@app.command()
def jobs(home: HomeOption = DEFAULT_HOME) -> None:
    """List the jobs."""
    console.print(resources.jobs_table(_client(home)))


@app.command()
def cancel(job: str, home: HomeOption = DEFAULT_HOME) -> None:
    """Cancel a job."""
    answer = _client(home).post(f"/fine_tuning/jobs/{job}/cancel")
    console.print(f"{answer['id']} is being cancelled")


@app.command()
def events(job: str, home: HomeOption = DEFAULT_HOME) -> None:
    """Show a job's story, oldest first."""
    console.print(resources.events_table(_client(home), job))


@app.command()
def models(home: HomeOption = DEFAULT_HOME) -> None:
    """List the finished models, each with the job that made it."""
    console.print(resources.models_table(_client(home)))


@app.command()
def cluster(home: HomeOption = DEFAULT_HOME) -> None:
    """Show the nodes, what runs on them and what waits."""
    for table in resources.cluster_tables(_client(home)):
        console.print(table)


def _client(home: Path) -> Client:
    stack = Stack(home)
    if not stack.is_up:
        raise StackError(f"no stack is up in {stack.home.root}: start it with `ibllm up`")
    environment = service_environment(stack.home)
    return Client(environment["IBLLM_SERVICE_URL"], environment["IBLLM_API_KEY"])


if __name__ == "__main__":
    main()
