"""Training data of this machine on its way to the service, with its progress."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ibllm_core.contract.api.files import FileObject
from orchestrator.cli.screen import err, plain, say
from orchestrator.client import Client
from orchestrator.client.download import Progress as Told


class Uploads:
    """The uploads of one command: the same content is sent once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ids: dict[str, str] = {}

    def id_of(self, path: Path) -> str:
        """The id of a file's content, which the service has checked and found usable."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest not in self._ids:
            self._ids[digest] = upload(self._client, path).id
        return self._ids[digest]


def upload(client: Client, path: Path, *, base: str | None = None, template: str | None = None) -> FileObject:
    """Send a file and wait for its check; ``FileRefusedError`` where a job would refuse it."""
    with moving_bar(f"upload {path.name}") as told:
        file = client.files.upload(path, base=base, template=template, progress=told)
    with err().status(f"the service checks {plain(path.name).plain} ..."):
        checked = client.files.wait_for_processing(file.id)
    say(f"{path.name} is {checked.id}, rows: {checked.rows or 0:,}")
    return checked


@contextmanager
def moving_bar(words: str) -> Iterator[Told]:
    """A bar for bytes, on a terminal; nothing elsewhere."""
    console = err()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(plain(words).plain, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
