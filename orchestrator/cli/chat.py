"""``ibllm chat``: try a model, once or in a conversation."""

from __future__ import annotations

import base64
import mimetypes
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.options import JsonOption
from orchestrator.cli.screen import plain, print_json, say
from orchestrator.cli.service import ServiceCommand, connect
from orchestrator.client import Client

app = typer.Typer()
Message = dict[str, Any]
MediaOption = Annotated[list[Path] | None, typer.Option(exists=True, dir_okay=False, help="several may be given")]
UNKNOWN_TYPE = "application/octet-stream"  # the service looks into the medium itself


@app.command(cls=ServiceCommand)
def chat(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a fine-tuned model, a job, or a checkpoint")],
    prompt: Annotated[str | None, typer.Argument(help="without it a conversation begins")] = None,
    image: MediaOption = None,
    audio: MediaOption = None,
    video: MediaOption = None,
    system: Annotated[str | None, typer.Option(help="what the model is told before")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, max=1 << 20, help="of an answer")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0: the likeliest answer")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a fine-tuned model, with pictures, sounds and videos.

    The answer is printed as it comes. Without a prompt, and with a terminal, a conversation begins, which Ctrl-D ends;
    the media belong to its first question. Without a terminal the prompt is read from the standard input.
    """
    media = [*_parts("image", image), *_parts("audio", audio), *_parts("video", video)]
    settings = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    request = {name: value for name, value in settings.items() if value is not None}
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    with connect(context) as client:
        if prompt is None and sys.stdin.isatty() and not as_json:
            _converse(client, request, messages, media)
            return
        messages.append(_question(sys.stdin.read() if prompt is None else prompt, media))
        if as_json:
            print_json(client.chat.complete({**request, "messages": messages}))
        else:
            _answer(client, request, messages)


def _converse(client: Client, request: Message, messages: list[Message], media: list[Message]) -> None:
    say("Ctrl-D ends the conversation")
    while True:
        try:
            words = input("> ")
        except EOFError:
            return
        if words.strip():
            messages.append(_question(words, media))
            media = []
            messages.append({"role": "assistant", "content": _answer(client, request, messages)})


def _question(words: str, media: list[Message]) -> Message:
    return {"role": "user", "content": [*media, {"type": "text", "text": words}] if media else words}


def _answer(client: Client, request: Message, messages: list[Message]) -> str:
    """Print an answer as it comes, and return it."""
    told = ""
    for chunk in client.chat.stream({**request, "messages": messages}):
        for choice in chunk.choices:
            words = choice.delta.content or ""
            typer.echo(plain(words).plain, nl=False)
            told += words
    typer.echo()
    return told


def _parts(kind: str, paths: list[Path] | None) -> list[Message]:
    """Files as the parts of a message."""
    return [{"type": f"{kind}_url", f"{kind}_url": {"url": _data_url(path)}} for path in paths or []]


def _data_url(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f"data:{mimetypes.guess_type(path.name)[0] or UNKNOWN_TYPE};base64,{content}"
