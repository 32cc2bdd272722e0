"""Time a compile run's encoding against the encoder's own forward pass alone, on this machine: part of ``make bench``.

Both use the same number of processes and threads: the forward pass alone runs on inputs that are decoded already, the
compile run reads JSON Lines with PNG data URLs, decodes, encodes and writes datasets, on a real Ray cluster and a real
object store. The run's rate is taken from the first picture's encoding to the last one's, and over the whole run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import Resources
from ibllm_core.contract.media import Modality
from ibllm_core.encoders.imagebind.config import Tower, huge
from ibllm_core.encoders.imagebind.model import ImageBind
from ibllm_core.encoders.imagebind.weights import split
from ibllm_core.encoders.registry import load_encoder
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from tests.workers.compile.world import World, chat_row, jsonl, nodes, picture, world

PICTURES = 256
WORKERS = 2
TURNS = 3
BLOCKS = 2  # of ImageBind's 32: their width is what counts, and a machine without GPU has to end some day


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", choices=("efficientnet-lite0", "imagebind"), default="imagebind")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--side", type=int, default=224, help="pixels of a picture's side")
    parser.add_argument("--turns", type=int, default=TURNS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as made, nodes(os.cpu_count() or WORKERS):
        weights = put_imagebind(made, Path(folder)) if chosen.encoder == "imagebind" else None
        turns = [turn(made, chosen.encoder, weights, chosen.pictures, chosen.side, n) for n in range(chosen.turns)]
    print(f"{chosen.encoder}, {chosen.pictures} pictures of {chosen.side}x{chosen.side}, {WORKERS} processes")
    for found in turns:
        print(
            f"alone {found.alone:.2f}/s, compiling {found.compiling:.2f}/s ({found.compiling / found.alone:.1%}), "
            f"encoders busy {found.busy:.1%}, whole run with its start {found.whole:.2f}/s"
        )
    print(f"median of ratios: {statistics.median(found.compiling / found.alone for found in turns):.1%}")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Pictures a second; ``busy`` is the share of time that an encoder actor encodes."""

    alone: float
    compiling: float
    whole: float
    busy: float


def turn(made: World, encoder: str, weights: Path | None, count: int, side: int, number: int) -> Turn:
    """The forward pass alone, and then a compile run over the same pictures."""
    pictures = [picture(number * count + index, side) for index in range(count)]
    alone = forward_alone(encoder, weights, pictures)
    rows = [chat_row("what is this ?", "a cat", content) for content in pictures]
    upload = made.put_upload(f"bench-{number}.jsonl", jsonl(rows))
    made.recorder.clear()
    started = time.monotonic()
    made.compile(upload, job=f"ftjob-{number}", encoder=encoder, resources=Resources(workers=WORKERS))
    encoding = made.recorder.encoding
    return Turn(
        alone=alone,
        compiling=encoding["media_per_second"],
        busy=encoding["busy_share"],
        whole=count / (time.monotonic() - started),
    )


def forward_alone(encoder: str, weights: Path | None, pictures: list[bytes]) -> float:
    """Pictures a second of ``encode`` in as many processes as the compile run has actors, all at once."""
    context = get_context("spawn")
    barrier, spans = context.Barrier(WORKERS), context.Queue()
    shares = [pictures[worker::WORKERS] for worker in range(WORKERS)]
    processes = [context.Process(target=_forward, args=(encoder, weights, share, barrier, spans)) for share in shares]
    for process in processes:
        process.start()
    found = [spans.get() for _ in processes]
    for process in processes:
        process.join()
    return len(pictures) / (max(end for _, end in found) - min(start for start, _ in found))


def _forward(name: str, weights: Path | None, pictures: list[bytes], barrier: Any, spans: Any) -> None:
    torch.set_num_threads(1)
    encoder = load_encoder(name, weights=weights)
    inputs = [encoder.preprocess(Modality.IMAGE, content) for content in pictures]
    encoder.encode(Modality.IMAGE, inputs[:4])  # weights are read by the first call
    barrier.wait()
    started = time.time()
    encoder.encode(Modality.IMAGE, inputs)
    spans.put((started, time.time()))


def put_imagebind(made: World, folder: Path) -> Path:
    """Random weights of ImageBind's vision tower, as wide as the released and less deep, in the object store."""
    config = huge().only(Tower.VISION)
    assert config.vision is not None
    config = config.model_copy(update={"vision": config.vision.model_copy(update={"blocks": BLOCKS})})
    torch.manual_seed(0)
    torch.save(ImageBind(config).state_dict(), folder / "imagebind.pth")
    split(folder / "imagebind.pth", folder / "imagebind", config)
    ObjectStore(StorageSettings()).upload_folder(layout.encoder("imagebind"), folder / "imagebind")
    return folder / "imagebind"


if __name__ == "__main__":
    main()
