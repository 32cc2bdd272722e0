"""What each fusion and each norm of the bind network costs: ``make bench`` prints the table of docs/performance.md.

One step is the forward and backward of stage 1 over samples of one length, a row each, a quarter of each sample
labels. Text tokens a second count no media tokens, since those carry no text. Time is a ratio to ``token_add`` in the
same turn; what the backward pass keeps is counted, not sampled.
"""

from __future__ import annotations

import statistics
import sys
import time
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
    models = {name: stage1_model(dtype, **config) for name, config in VARIANTS.items()}
    print(f"{torch.get_num_threads()} threads, {dtype}, {TURNS} turns\n")
    print("| text tokens of a sample | fusion | text tokens/s | time, ratio to the first | kept, KB a text token |")
    print("|---:|---|---:|---:|---:|")
    for length in lengths:
        batches = {name: batch_of(model, length) for name, model in models.items()}
        kept = {name: saved_bytes(model, batches[name]) for name, model in models.items()}
        turns = [{name: seconds(model, batches[name]) for name, model in models.items()} for _ in range(TURNS)]
        baseline = next(iter(models))
        for name in models:
            rate = TOKENS_A_STEP / statistics.median(turn[name] for turn in turns)
            ratio = statistics.median(turn[name] / turn[baseline] for turn in turns)
            print(
                f"| {length} | {name} | {rate:.0f} | {ratio:.2f} | {kept[name] / TOKENS_A_STEP / 1000:.0f} |",
                flush=True,
            )


def batch_of(model: ImageBindLLM, length: int) -> Batch:
    data = captions(TOKENS_A_STEP // length, (length, length), prompt_length=length - length // 4)
    lead = model.fusion.media_tokens
    rows = [[index] for index in range(len(data.samples))]
    return collate(data, rows, row_tokens=length + lead, pad_token=0, media_tokens=lead)


def seconds(model: ImageBindLLM, batch: Batch) -> float:
    started = time.perf_counter()
    model(batch).mean().backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    main([int(length) for length in sys.argv[1:]] or [64, 256, 512])
