"""The demo's data: four JSONL files in OpenAI's chat format, from packages.

Held-out captions never occur in training, and neither does a picture of a held-out question.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ibllm_core.contract.templates import CAPTION_INSTRUCTION
from orchestrator.demo.packages import Sources

SEED = 0
# Symbols, signs and flags are drawings of text and colour bars that the encoder cannot tell apart.
LEFT_OUT_FOLDERS = frozenset({"symbols", "signs", "flags"})
MAX_SIDE = 256
SHAPES = frozenset({"circle", "rectangle", "triangle"})


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of the data a demo uses."""

    stamps: int | None
    held_out_captions: int
    shape_pictures: int
    questions: int
    held_out_pictures: int
    held_out_questions: int


FULL = Size(
    stamps=None,
    held_out_captions=60,
    shape_pictures=600,
    questions=2500,
    held_out_pictures=150,
    held_out_questions=400,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A picture, what is asked of it, and the answer."""

    picture: Path
    instruction: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """The rows of the four files."""

    captions: list[Row]
    held_out_captions: list[Row]
    questions: list[Row]
    held_out_questions: list[Row]


def choose(sources: Sources, size: Size) -> DemoData:
    """Choose the rows; the same every time."""
    chance = random.Random(SEED)  # noqa: S311 (a split, not a secret)
    stamps = read_stamps(sources.stamps)
    captions = sorted({row.answer for row in stamps})
    chance.shuffle(captions)
    held_out = frozenset(captions[: size.held_out_captions])
    training_stamps = [row for row in stamps if row.answer not in held_out]
    chance.shuffle(training_stamps)
    training = read_questions(sources.easy_vqa / "train", size.shape_pictures)
    testing = read_questions(sources.easy_vqa / "test", size.held_out_pictures)
    shape_captions = describe_shapes(training)
    chance.shuffle(training)
    chance.shuffle(testing)
    return DemoData(
        captions=[*training_stamps[: size.stamps], *shape_captions],
        held_out_captions=[row for row in stamps if row.answer in held_out],
        questions=training[: size.questions],
        held_out_questions=testing[: size.held_out_questions],
    )


def read_stamps(folder: Path) -> list[Row]:
    """Every stamp with an English caption (the first line of its text file), in the order of the paths."""
    rows = []
    for picture in sorted(folder.rglob("*.png")):
        text = picture.with_suffix(".txt")
        if LEFT_OUT_FOLDERS & set(picture.relative_to(folder).parts) or not text.exists():
            continue
        caption = text.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0].strip()
        if caption:
            rows.append(Row(picture=picture, instruction=CAPTION_INSTRUCTION, answer=caption))
    return rows


def read_questions(folder: Path, num_pictures: int) -> list[Row]:
    """easy-VQA's questions about its first pictures."""
    questions = json.loads((folder / "questions.json").read_text())
    return [
        Row(picture=folder / "images" / f"{picture}.png", instruction=question, answer=answer)
        for question, answer, picture in questions
        if picture < num_pictures
    ]


def describe_shapes(questions: Sequence[Row]) -> list[Row]:
    """A caption such as "A blue circle." for each picture whose colour and shape the training answers tell."""
    colours: dict[Path, str] = {}
    shapes: dict[Path, str] = {}
    for row in questions:
        if row.instruction.startswith("what"):
            (shapes if row.answer in SHAPES else colours)[row.picture] = row.answer
    return [
        Row(picture=picture, instruction=CAPTION_INSTRUCTION, answer=f"A {colours[picture]} {shapes[picture]}.")
        for picture in sorted(colours.keys() & shapes.keys())
    ]


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as chat lines with their pictures as data URLs."""
    urls: dict[Path, str] = {}
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            url = urls.setdefault(row.picture, "") or data_url(row.picture)
            urls[row.picture] = url
            parts = [{"type": "text", "text": row.instruction}, {"type": "image_url", "image_url": {"url": url}}]
            messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": row.answer}]
            file.write(json.dumps({"messages": messages}) + "\n")


def data_url(picture: Path) -> str:
    """A picture as a PNG data URL, no larger than the encoder can use."""
    image = Image.open(picture)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
