"""What each fusion and each norm of the bind network costs: ``make bench`` prints the table of docs/performance.md.

One step is the forward and backward of stage 1 over samples of one length, a row each, a quarter of each sample
labels. Text tokens a second count no media tokens, since those carry no text. Times are the fastest of several turns;
what the backward pass keeps is counted, not sampled.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ibllm_core.data.collate import collate
from ibllm_core.model.batch import Batch
from ibllm_core.model.imagebind_llm import ImageBindLLM
from tests.benchmarks.shapes import captions, stage1_model
from tests.memory import saved_bytes
from workers.model_loading import choose_dtype

TURNS = 5
TOKENS_A_STEP = 512
VARIANTS: dict[str, dict[str, Any]] = {
    "token_add, RMSNorm": {},
    "token_add, LayerNorm": {"bind_norm": "layer"},
    "value_gate": {"fusion": "value_gate"},
    "adapter_prefix, 10 prompts": {"fusion": "adapter_prefix"},
    "concat, 1 token": {"fusion": {"kind": "concat", "tokens": 1}},
    "concat, 32 tokens": {"fusion": {"kind": "concat", "tokens": 32}},
    "concat, 257 tokens": {"fusion": {"kind": "concat", "tokens": 257}},
}


def main(lengths: list[int]) -> None:
    dtype = choose_dtype("auto")
    print(f"{torch.get_num_threads()} threads, {dtype}, fastest of {TURNS} turns, {TOKENS_A_STEP} text tokens a step\n")
    report({name: stage1_model(dtype, **config) for name, config in VARIANTS.items()}, lengths, TURNS)


def report(models: Mapping[str, ImageBindLLM], lengths: Sequence[int], turns: int) -> None:
    """Print the table; the first model is what the others' times are held against."""
    print(
        "| tokens a sample | fusion | forward ms | backward ms | text tokens/s | time, ratio | kept, KB a text token |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|")
    for length in lengths:
        batches = {name: batch_of(model, length) for name, model in models.items()}
        kept = {name: saved_bytes(model, batches[name]) for name, model in models.items()}
        taken = [{name: seconds(model, batches[name]) for name, model in models.items()} for _ in range(turns)]
        baseline = next(iter(models))
        for name in models:
            forward, backward = fastest(taken, name)
            rate = TOKENS_A_STEP / (forward + backward)
            ratio = (forward + backward) / sum(fastest(taken, baseline))
            figures = f"{forward * 1000:.0f} | {backward * 1000:.0f} | {rate:.0f} | {ratio:.2f}"
            print(f"| {length} | {name} | {figures} | {kept[name] / TOKENS_A_STEP / 1000:.0f} |", flush=True)


def fastest(taken: Sequence[Mapping[str, tuple[float, float]]], name: str) -> tuple[float, float]:
    """The least of all turns, forward and backward: what other processes take can only be added."""
    return min(turn[name][0] for turn in taken), min(turn[name][1] for turn in taken)


def batch_of(model: ImageBindLLM, length: int) -> Batch:
    data = captions(TOKENS_A_STEP // length, (length, length), prompt_length=length - length // 4)
    lead = model.fusion.media_tokens
    rows = [[index] for index in range(len(data))]
    return collate(data, rows, row_tokens=length + lead, pad_token=0, media_tokens=lead)


def seconds(model: ImageBindLLM, batch: Batch) -> tuple[float, float]:
    """Forward, backward."""
    started = time.perf_counter()
    loss = model(batch).mean()
    between = time.perf_counter()
    loss.backward()
    return between - started, time.perf_counter() - between


if __name__ == "__main__":
    main([int(length) for length in sys.argv[1:]] or [64, 256, 512])
