"""The embedded stack: ``ibllm up``, ``down``, ``status``, ``env``, ``demo``, ``import-base``, ``import-encoder``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibllm_core.contract.adapter_config import FusionKind
from orchestrator.cli.address import DEFAULT_HOME
from orchestrator.cli.exits import Exit
from orchestrator.cli.options import HomeOption
from orchestrator.cli.screen import Column, out, print_table, size
from orchestrator.demo.run import run_demo
from orchestrator.local import weights
from orchestrator.local.errors import StackError
from orchestrator.local.parts import service_environment
from orchestrator.local.stack import Stack

app = typer.Typer()
PARTS = (
    Column("part", is_whole=True),
    Column("address", is_whole=True),
    Column("pid"),
    Column("state"),
    Column("health", is_whole=True),
    Column("memory", is_whole=True, is_number=True),
)


@app.command()
def demo(
    home: HomeOption = DEFAULT_HOME,
    small: Annotated[bool, typer.Option(help="a minute of training: shows the way, proves nothing")] = False,
    fusion: Annotated[FusionKind, typer.Option(help="how the picture meets the layers")] = "token_add",
) -> None:
    """Run the whole mission on real data, and write the report.

    It leaves the stack up when it succeeds.
    """
    raise typer.Exit(run_demo(Stack(home), out(), small=small, fusion=fusion))


@app.command()
def up(home: HomeOption = DEFAULT_HOME) -> None:
    """Start the embedded stack, and wait until every part is healthy."""
    stack, console = Stack(home), out()
    stack.up(console.print)
    url, key_file = service_environment(stack.home)["IBLLM_SERVICE_URL"], stack.home.credentials_file
    console.print(f"the API is at {url}/v1, its key in {key_file}", soft_wrap=True)


@app.command()
def status(home: HomeOption = DEFAULT_HOME) -> None:
    """Show each part's address, process, health and memory.

    Exits with 1 where a part is not healthy.
    """
    parts = Stack(home).status()
    rows = (
        (
            part.name,
            part.address,
            str(part.pid or ""),
            part.state,
            "healthy" if part.healthy else "not healthy",
            size(part.memory) if part.memory else "",
        )
        for part in parts
    )
    print_table(PARTS, rows)
    if not all(part.healthy for part in parts):
        raise typer.Exit(Exit.FAILED)


@app.command()
def env(home: HomeOption = DEFAULT_HOME) -> None:
    """Print the stack's addresses and keys as shell exports.

    For a shell: `eval "$(ibllm env)"`.
    """
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
def down(home: HomeOption = DEFAULT_HOME) -> None:
    """Stop everything; the data stays."""
    Stack(home).down()
    out().print("everything is stopped; `ibllm up` resumes with all data")


@app.command("import-base")
def import_base(name: str, source: Path, home: HomeOption = DEFAULT_HOME) -> None:
    """Bring a base model into the object store.

    SOURCE is a safetensors folder, a GGUF file, or Meta's folder of .pth files.
    """
    out().print(weights.import_base(name, source, _environment_of_running(home)), markup=False)


@app.command("import-encoder")
def import_encoder(name: str, source: Path, home: HomeOption = DEFAULT_HOME) -> None:
    """Bring an encoder's weights into the object store.

    SOURCE is a released .pth for imagebind, else the encoder's folder.
    """
    out().print(weights.import_encoder(name, source, _environment_of_running(home)), markup=False)


def _environment_of_running(home: Path) -> dict[str, str]:
    stack = Stack(home)
    if not stack.is_up:
        raise StackError(f"no stack is up in {stack.home.root}: start it with `ibllm up`")
    return service_environment(stack.home)
