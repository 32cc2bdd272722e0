"""Time the stage-1 step, packed against padded, in turns in one process: ``make bench``.

A LLaMA of SmolLM2-135M's shape with random weights, captions of 10 to 40 tokens, bf16 where the CPU has it. Prints
real tokens (no padding) a second of each, and the median of the ratios of neighbouring turns.
"""

from __future__ import annotations

import statistics
import time

import torch

from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.dataset import Dataset
from ibllm_core.data.packing import Sampler
from ibllm_core.model.imagebind_llm import ImageBindLLM
from tests.benchmarks.shapes import captions, stage1_model
from workers.model_loading import choose_dtype

TURNS = 5
ROW_TOKENS = 256
PADDED_TOKENS = (96, 512)  # what the released trainer pads stage 1 and stage 2 to


def main() -> None:
    dtype = choose_dtype("auto")
    model = stage1_model(dtype)
    print(f"{torch.get_num_threads()} threads, {dtype}, captions of 10 to 40 tokens")
    for width in PADDED_TOKENS:
        turns = packed_and_padded(model, width, TURNS)
        print(f"packed rows of {ROW_TOKENS}: {statistics.median(a for a, _ in turns):.0f} real tokens/s")
        print(f"padded to {width}: {statistics.median(b for _, b in turns):.0f} real tokens/s")
        print(f"ratio, median of {TURNS} turns: {statistics.median(a / b for a, b in turns):.2f}")


def packed_and_padded(model: ImageBindLLM, width: int, turns: int) -> list[tuple[float, float]]:
    """Real tokens a second of both ways, in turns."""
    data = captions(200)
    sampler = Sampler(sizes=[200], weights=[1.0], seed=0, epochs=1, row_tokens=ROW_TOKENS, rows_per_step=4)
    packed = list(next(sampler.batches(data.lengths())).rows)
    members = [(index,) for row in packed for index in row]
    return [(rate(model, data, packed, ROW_TOKENS), rate(model, data, members, width)) for _ in range(turns)]


def rate(model: ImageBindLLM, data: Dataset, rows: list[tuple[int, ...]], row_tokens: int) -> float:
    """Real tokens a second of one forward and backward."""
    batch = collate(data, rows, row_tokens=row_tokens, pad_token=0)
    started = time.perf_counter()
    (model(batch).sum() / count_labels(data, rows)).backward()
    return sum(int(data.lengths()[list(row)].sum()) for row in rows) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
