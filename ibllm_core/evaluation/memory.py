"""How much of an evaluation fits into memory at once: arithmetic over the base's shape, on the safe side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from ibllm_core.model.backbone import BaseShape

FP32 = 4
USED_SHARE = 0.5  # of what is free; allocators leave holes, and others are on the machine
CGROUP = Path("/sys/fs/cgroup")


def usable_bytes(device: torch.device) -> int:
    """Memory that an evaluation may take now: of the GPU, or of the machine within its container's limit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(USED_SHARE * (free + held))
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return int(USED_SHARE * max(0, free))


def answer_bytes(shape: BaseShape, element_bytes: int, prompt: int, new_tokens: int) -> int:
    """What one answer takes: keys and values of all its positions, and its prompt's way through one layer."""
    head_dim = shape.model_dim // shape.num_heads
    a_position = 2 * shape.num_layers * shape.num_kv_heads * head_dim * element_bytes
    a_prompt = _layer_bytes(shape, element_bytes, prompt)
    return a_position * (prompt + new_tokens) + a_prompt + FP32 * shape.vocab_size


def row_bytes(shape: BaseShape, element_bytes: int, row_tokens: int) -> int:
    """What one packed row's losses take: its way through one layer, and logits at every token, twice in float32."""
    return _layer_bytes(shape, element_bytes, row_tokens) + row_tokens * shape.vocab_size * (element_bytes + 2 * FP32)


def batches_of(needed: Sequence[int], room: int, most: int) -> list[list[int]]:
    """Numbers ``0`` to ``len(needed) - 1`` in batches, those that need the most bytes first.

    A batch is padded to its first, whose bytes each of its members costs; it has at most ``most`` members, and at least
    one even where that is more than ``room``.
    """
    batches: list[list[int]] = []
    for number in sorted(range(len(needed)), key=lambda number: (-needed[number], number)):
        last = batches[-1] if batches else []
        if last and len(last) < most and (len(last) + 1) * needed[last[0]] <= room:
            last.append(number)
        else:
            batches.append([number])
    return batches


def _layer_bytes(shape: BaseShape, element_bytes: int, tokens: int) -> int:
    """Activations of one layer without gradients, with masks and with scores as SDPA's plain way holds them."""
    a_token = (6 * shape.model_dim + 3 * shape.hidden_dim) * element_bytes
    return tokens * a_token + tokens**2 * (FP32 * shape.num_heads + 1)
