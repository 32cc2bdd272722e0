"""Small files of every format, written without the code under test."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import wave
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ibllm_core.formats.dataset import Dataset, open_dataset
from ibllm_core.formats.sample import BadRow, Sample
from ibllm_core.formats.sources import LocalSource


def picture(shade: int = 0, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4, 4), shade).save(stream, kind)
    return stream.getvalue()


def sound() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(64))
    return stream.getvalue()


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def data_url(content: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64_of(content)}"


def chat_row(question: str = "What is it?", answer: str = "A cat.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def caption_row(number: int) -> dict[str, Any]:
    return {"image": f"{number}.png", "caption": f"picture {number}"}


def json_lines(rows: Iterable[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def tar(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def opened(folder: Path, files: Mapping[str, bytes]) -> Dataset:
    """The dataset of one file, or of the folder where there are several."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return open_dataset(LocalSource(root=folder, name=next(iter(files)) if len(files) == 1 else None))


def samples(rows: Iterable[Sample | BadRow]) -> list[Sample]:
    """The rows, all of which must be good."""
    found = list(rows)
    assert [row for row in found if isinstance(row, BadRow)] == []
    return [row for row in found if isinstance(row, Sample)]


def bad_rows(rows: Iterable[Sample | BadRow]) -> dict[int, str]:
    """Reasons by row of those that are bad."""
    return {row.row: row.reason for row in rows if isinstance(row, BadRow)}


def good_rows(rows: Iterable[Sample | BadRow]) -> list[int]:
    """Numbers of the rows that are good."""
    return [row.row for row in rows if isinstance(row, Sample)]
