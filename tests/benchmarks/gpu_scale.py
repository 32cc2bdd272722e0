"""What the GPU benchmark builds: LLaMA-7B's shape with random weights on a card, or a tiny one on a CPU."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_core.bases.skeleton import allocate, finish
from ibllm_core.data.dataset import Dataset
from tests.benchmarks.shapes import captions
from tests.benchmarks.training_ladder import Ours, twin

DEVIATION = 0.02  # of random weights, as transformers draws them
TINY: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A base's shape, and how much is trained on: samples of ``lengths`` tokens, ``tokens`` of a global batch.

    ``micro_batches`` are tokens too; ``usual`` is the one that everything else is measured at.
    """

    base: dict[str, Any]
    lengths: tuple[int, int]
    row_tokens: int
    tokens: int
    micro_batches: tuple[int, ...]
    usual: int
    turns: int

    @property
    def config(self) -> LlamaConfig:
        return LlamaConfig(**self.base)


FULL = Scale(
    base={"max_position_embeddings": 2048},  # transformers' defaults are LLaMA-7B's
    lengths=(50, 97),  # Alpaca's prompt of 42 tokens with captions of the web
    row_tokens=2048,
    tokens=16384,
    micro_batches=(2048, 4096, 8192, 16384),
    usual=8192,
    turns=5,
)
SMALL = Scale(
    base=TINY,
    lengths=(10, 40),
    row_tokens=64,
    tokens=256,
    micro_batches=(64, 256),
    usual=128,
    turns=1,
)


def samples(scale: Scale) -> Dataset:
    """Captions for three global batches, in the base's vocabulary."""
    found = captions(4 * scale.tokens // scale.lengths[0], scale.lengths, scale.lengths[0] - 8)
    return replace(found, tokens_T=found.tokens_T % scale.config.vocab_size)


def random_llama(config: LlamaConfig, dtype: torch.dtype, device: torch.device, seed: int = 0) -> LlamaForCausalLM:
    """A frozen base of random weights, made where it is to be."""
    torch.manual_seed(seed)
    llama = allocate(config, dtype, device)
    with torch.no_grad():
        for parameter in llama.parameters():
            if parameter.ndim == 1:
                parameter.fill_(1)
            else:
                parameter.normal_(0, DEVIATION)
    return finish(llama, dtype)


def trainer(
    llama: LlamaForCausalLM, scale: Scale, device: torch.device, *, micro_tokens: int | None = None, zero_stage: int = 0
) -> Ours:
    """The trainer of stage 1 around a base that stays as it is; the same for the same base."""
    torch.manual_seed(0)
    return Ours(
        twin(llama),
        samples(scale),
        row_tokens=scale.row_tokens,
        rows=scale.tokens // scale.row_tokens,
        micro_rows=(micro_tokens or scale.usual) // scale.row_tokens,
        fusion="token_add",
        zero_stage=zero_stage,
        device=device,
    )


def seconds(act: Callable[[], object], device: torch.device, turns: int, warm_up: int = 2) -> float:
    """Median of what a call takes until the device is done."""
    found = []
    for turn in range(warm_up + turns):
        wait(device)
        started = time.perf_counter()
        act()
        wait(device)
        if turn >= warm_up:
            found.append(time.perf_counter() - started)
    return statistics.median(found)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def free(device: torch.device) -> None:
    """Give back what nobody refers to any more, and begin a new peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def gigabytes(device: torch.device, *, peak: bool = False) -> float:
    """Allocated on the device; 0 on a CPU, where nobody counts."""
    if device.type != "cuda":
        return 0.0
    return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 1e9
