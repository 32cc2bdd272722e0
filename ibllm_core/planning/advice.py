"""What to change where memory does not suffice: each setting with what it would bring, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ibllm_core.planning.activations import FP32
from ibllm_core.planning.choice import HEADROOM, Plan, choose, size_text

FEWEST_ROW_TOKENS = 16  # the contract's


def out_of_memory_advice(plan: Plan) -> str:
    """The settings to change in order, each with the memory that a worker would then need.

    Only settings that lower it are named; the last resort is a device with more memory.
    """
    lines = [
        f"{setting} (then {size_text(other.memory.device)}{', which fits' if other.fits else ''})"
        for setting, other in _remedies(plan)
        if other.memory.device < plan.memory.device
    ]
    needed = size_text(plan.memory.device / HEADROOM)
    lines.append(f"give each worker {needed} of memory")
    return "; or ".join(lines)


def _remedies(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Settings that may be changed, with the plan that each would lead to."""
    wishes, training, room = plan.wishes, plan.training, plan.room
    if plan.rows > 1:
        changed = replace(wishes, micro_batch_tokens=wishes.row_tokens)
        yield f"set resources.micro_batch_tokens to {wishes.row_tokens}", choose(training, changed, room)
    if wishes.row_tokens >= 2 * FEWEST_ROW_TOKENS:
        halved = wishes.row_tokens // 2
        changed = replace(wishes, row_tokens=halved, micro_batch_tokens=halved)
        yield (
            f"lower hyperparameters.row_tokens to {halved}, if no sample is longer",
            choose(training, changed, room),
        )
    if wishes.zero_stage != "auto":
        yield "set resources.zero_stage to auto", choose(training, replace(wishes, zero_stage="auto"), room)
    if room.is_gpu and wishes.offload == "none":
        settings = "resources.offload" if wishes.zero_stage == "auto" else "resources.zero_stage and resources.offload"
        changed = replace(wishes, zero_stage="auto", offload="auto")
        yield f"set {settings} to auto", choose(training, changed, room)
    if not training.checkpoints_activations:
        checkpointed = replace(training, checkpoints_activations=True)
        yield "set resources.activation_checkpointing to true", choose(checkpointed, wishes, room)
    if training.element_bytes == FP32:
        yield "set resources.precision to bf16", choose(replace(training, element_bytes=2), wishes, room)
    if room.is_gpu:
        doubled = replace(wishes, workers=2 * wishes.workers)
        yield f"raise resources.workers to {doubled.workers}", choose(training, doubled, room)
