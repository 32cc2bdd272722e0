"""The ``ibllm`` command: its table of contents, and how its errors end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from orchestrator.cli.lazy import Chapter, LazyGroup, stubs

INTERRUPTED = 130
CONTENTS = (
    Chapter(
        name="Jobs",
        commands={
            "submit": ("orchestrator.cli.submit", "Submit a job, from a YAML or JSON file, or by flags."),
            "ls": ("orchestrator.cli.jobs", "List jobs, newest first, and where each one is."),
            "show": ("orchestrator.cli.jobs", "Show a job and its runs."),
            "watch": ("orchestrator.cli.follow", "Follow a job until it ends; Ctrl-C leaves it running."),
            "events": ("orchestrator.cli.follow", "Show what has happened to a job, oldest first."),
            "logs": ("orchestrator.cli.follow", "Show the log of a job's run, or of a part of the embedded stack."),
            "checkpoints": ("orchestrator.cli.jobs", "List a job's checkpoints, newest first."),
            "cancel": ("orchestrator.cli.jobs", "Cancel a job; what runs saves its step first."),
            "pause": ("orchestrator.cli.jobs", "Pause a job; what runs saves its step and lets its workers go."),
            "resume": ("orchestrator.cli.jobs", "Let a paused job go on from its newest checkpoint."),
        },
    ),
    Chapter(
        name="Data and models",
        commands={
            "data": ("orchestrator.cli.data", "Check, upload, list and remove training data."),
            "models": ("orchestrator.cli.models", "List fine-tuned models, newest first, and bases."),
            "download": ("orchestrator.cli.download", "Download a job's results, a model's weights, or a file."),
            "chat": ("orchestrator.cli.chat", "Ask a fine-tuned model, with pictures, sounds and videos."),
        },
    ),
    Chapter(
        name="Service",
        commands={
            "login": ("orchestrator.cli.account", "Remember a service and a key, after trying them."),
            "logout": ("orchestrator.cli.account", "Forget a service and its key."),
            "me": ("orchestrator.cli.account", "Show whose key is used, with which service, and what it may do."),
            "cluster": ("orchestrator.cli.cluster", "Show the nodes, what runs on them, and what waits and why."),
            "projects": ("orchestrator.cli.projects", "Projects, what they use and what they may."),
            "members": ("orchestrator.cli.members", "Who may do what in a project."),
            "keys": ("orchestrator.cli.keys", "API keys of a project."),
            "webhooks": ("orchestrator.cli.webhooks", "Addresses that are told of a project's jobs."),
            "audit": ("orchestrator.cli.audit", "Show who did what in the organisation, newest first."),
        },
    ),
    Chapter(
        name="Embedded stack",
        commands={
            "demo": ("orchestrator.cli.stack", "Run the whole mission on real data, and write the report."),
            "up": ("orchestrator.cli.stack", "Start the embedded stack, and wait until every part is healthy."),
            "status": ("orchestrator.cli.stack", "Show each part's address, process, health and memory."),
            "env": ("orchestrator.cli.stack", "Print the stack's addresses and keys as shell exports."),
            "down": ("orchestrator.cli.stack", "Stop everything; the data stays."),
            "import-base": ("orchestrator.cli.stack", "Bring a base model into the object store."),
            "import-encoder": ("orchestrator.cli.stack", "Bring an encoder's weights into the object store."),
        },
    ),
)


class Contents(LazyGroup):
    """All commands, none of them loaded."""

    stubs = stubs(CONTENTS)


app = typer.Typer(cls=Contents, no_args_is_help=True, help="Fine-tune ImageBind-LLM as a service.")


@app.callback()
def ibllm() -> None:
    """Fine-tune ImageBind-LLM as a service."""


def main() -> None:
    """The process: SIGTERM and SIGHUP end a command as Ctrl-C does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)
    sys.exit(run())


def run(words: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. What a user can mend is one sentence, a defect keeps its trace."""
    try:
        code = app(args=words, standalone_mode=False, prog_name="ibllm")
    except Exception as error:
        from orchestrator.cli.exits import explain

        return explain(error)
    if code == INTERRUPTED:
        typer.echo("interrupted", err=True)
    return code or 0


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
