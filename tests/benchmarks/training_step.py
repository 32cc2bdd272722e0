"""Time the stage-1 step, packed against padded, in turns in one process: ``make bench``.

A LLaMA of SmolLM2-135M's shape with random weights, captions of 10 to 40 tokens, bf16 where the CPU has it. Prints
real tokens (no padding) a second of each, and the median of the ratios of neighbouring turns.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.dataset import CompiledSample, Dataset
from ibllm_core.data.packing import order_of, pack
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for
from workers.model_loading import choose_dtype

TURNS = 7
ROW_TOKENS = 256
PADDED_TOKENS = 96  # what the released trainer pads stage 1 to
FEATURE_DIM = 1280


def main() -> None:
    dtype = choose_dtype("auto")
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    model = ImageBindLLM(LlamaForCausalLM(config).to(dtype).requires_grad_(False), FEATURE_DIM)
    freeze_for("stage1", model)
    data = captions(200)
    packed = pack(order_of(200, 0, 0), data.lengths, ROW_TOKENS)[:2]
    members = [(index,) for row in packed for index in row]
    turns = [(rate(model, data, packed, ROW_TOKENS), rate(model, data, members, PADDED_TOKENS)) for _ in range(TURNS)]
    print(f"{torch.get_num_threads()} threads, {dtype}, {len(members)} captions a step")
    print(f"packed rows of {ROW_TOKENS}: {statistics.median(a for a, _ in turns):.0f} real tokens/s")
    print(f"padded to {PADDED_TOKENS}:     {statistics.median(b for _, b in turns):.0f} real tokens/s")
    print(f"ratio, median of {TURNS} turns: {statistics.median(a / b for a, b in turns):.2f}")


def captions(count: int) -> Dataset:
    rng = np.random.default_rng(0)
    samples = [
        CompiledSample(
            tokens=rng.integers(1, 49152, rng.integers(10, 41)).tolist(),
            prompt_length=8,
            feature=index,
            row=index + 1,
            instruction="",
            answer="",
        )
        for index in range(count)
    ]
    features = rng.standard_normal((count, FEATURE_DIM)).astype(np.float32)
    return Dataset(samples=samples, features=features, feature_hashes=[str(index) for index in range(count)])


def rate(model: ImageBindLLM, data: Dataset, rows: list[tuple[int, ...]], row_tokens: int) -> float:
    """Real tokens a second of one forward and backward."""
    batch = collate(data, rows, row_tokens=row_tokens, pad_token=0)
    started = time.perf_counter()
    (model(batch).sum() / count_labels(data, rows)).backward()
    return sum(data.lengths[index] for row in rows for index in row) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
