"""Time reading a compiled dataset on one core: its order, its packing, its batches. Part of ``make bench``.

Samples are as long as captions of the web with their prompt; the dataset lies in shards as a compile run writes them,
and is mapped from a local cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ibllm_core.data.collate import collate
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.dataset import CompiledSample
from ibllm_core.data.mapped import open_mapped
from ibllm_core.data.packing import Sampler
from ibllm_core.data.shards import write_features, write_samples
from ibllm_core.storage import sha256_of

SHARD_ROWS = 8192
FEATURE_DIM = 1024
ROWS_PER_STEP = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--row-tokens", type=int, default=2048)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), chosen.samples)
        report(Path(folder), chosen.row_tokens)


def write(folder: Path, count: int) -> None:
    """A dataset of ``count`` captions, each with a picture of its own."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(70, 15, count), 50, 120).astype(int)
    for number, start in enumerate(range(0, count, SHARD_ROWS)):
        rows = range(start, min(start + SHARD_ROWS, count))
        samples = [
            CompiledSample(
                tokens=rng.integers(0, 32000, lengths[row]).tolist(),
                labels=[(42, int(lengths[row]))],
                feature=row,
                row=row + 1,
                instruction="",
                answer="",
            )
            for row in rows
        ]
        write_samples(folder / f"shard-{number:05d}.parquet", samples)
        vectors = rng.standard_normal((len(rows), 1, FEATURE_DIM)).astype(np.float16)
        write_features(folder / f"features-{number:05d}.parquet", [f"image/{row}" for row in rows], vectors)


def report(folder: Path, row_tokens: int) -> float:
    """Print the rates; returns samples a second of packing and reading together."""
    started = time.perf_counter()
    manifest = {"files": {path.name: {"sha256": sha256_of(path)} for path in folder.glob("*.parquet")}}
    corpus = Corpus([open_mapped(folder, manifest)])
    print(f"{len(corpus)} samples, mapped once in {time.perf_counter() - started:.1f} s")
    sampler = Sampler(
        sizes=corpus.sizes,
        weights=corpus.weights,
        seed=0,
        epochs=1,
        row_tokens=row_tokens,
        rows_per_step=ROWS_PER_STEP,
    )
    lengths = corpus.lengths()
    started = time.perf_counter()
    batches = list(sampler.batches(lengths))
    packing = time.perf_counter() - started
    for batch in batches:
        collate(corpus, batch.rows, row_tokens=row_tokens, pad_token=0, epoch=batch.epoch)
    whole = time.perf_counter() - started
    rows = sum(len(batch.rows) for batch in batches)
    print(f"rows of {row_tokens} are filled to {lengths.sum() / (rows * row_tokens):.2%}")
    print(f"packing {len(corpus) / packing:,.0f} samples/s, packing and reading {len(corpus) / whole:,.0f} samples/s")
    return len(corpus) / whole


if __name__ == "__main__":
    main()
