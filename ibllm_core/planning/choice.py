"""How a training fits its workers: the lowest ZeRO stage and the largest micro batch, chosen by arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ibllm_core.contract.job_spec import Offload, Resources, ZeroStage
from ibllm_core.planning.activations import MicroBatch, Training
from ibllm_core.planning.memory import MemoryParts, Spread, worker_memory
from ibllm_core.planning.parameters import trained_parameters

HEADROOM = 0.9  # share of the memory that is planned with: allocators leave holes, and NCCL takes its own
# Above this, twelve replicated bytes a parameter cost more than gathering the updated weights once a step.
PARTITION_FROM = 50_000_000
# A GPU is busy from 8,192 tokens of LLaMA-7B on; more only takes memory.
MICRO_BATCH_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True)
class Room:
    """Memory that one worker may use, in bytes; on a CPU ``host`` is 0, since the device is the host."""

    device: int
    host: int
    is_gpu: bool


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a training asks for: the settings of its ``Resources``, and the rows of a step."""

    workers: int
    row_tokens: int
    rows_per_step: int
    zero_stage: ZeroStage | Literal["auto"] = "auto"
    offload: Offload | Literal["auto"] = "auto"
    micro_batch_tokens: int | None = None
    sample_tokens: float = 32.0  # mean of the data, of which a media vector's memory depends

    @classmethod
    def of(cls, resources: Resources, *, row_tokens: int, rows_per_step: int, sample_tokens: float) -> Wishes:
        """The wishes of a job's resources."""
        return cls(
            workers=resources.workers,
            row_tokens=row_tokens,
            rows_per_step=rows_per_step,
            zero_stage=resources.zero_stage,
            offload=resources.offload,
            micro_batch_tokens=resources.micro_batch_tokens,
            sample_tokens=sample_tokens,
        )

    @property
    def rows_a_worker(self) -> int:
        """The most rows that a worker has in one step."""
        return -(-self.rows_per_step // self.workers)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was decided, and why in one sentence. ``memory`` is the estimate; ``fits`` whether it leaves headroom."""

    training: Training
    wishes: Wishes
    room: Room
    zero_stage: ZeroStage
    offload: Offload
    rows: int
    memory: MemoryParts
    why: str = ""

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens of one forward pass of a worker: whole rows."""
        return self.rows * self.wishes.row_tokens

    @property
    def fits(self) -> bool:
        """Whether device and host have the room, with headroom."""
        on_device = self.memory.device <= HEADROOM * self.room.device
        return on_device and (not self.room.is_gpu or self.memory.host <= HEADROOM * self.room.host)


def choose(training: Training, wishes: Wishes, room: Room) -> Plan:
    """The first way that fits; where none does, the one that needs least, whose ``fits`` is false.

    Settings that are given are kept. In the order of what they cost in time: ZeRO 0 (or 2, where much is trained on
    several workers), 3, then the optimizer in the host's memory, then the parameters too. ZeRO 1 only where it is asked
    for: DeepSpeed's adds up micro-batches in bf16 there, and takes more memory.
    """
    ways = list(_ways(training, wishes, room))
    smallest = [_plan(training, wishes, room, stage, offload, rows=_least_rows(wishes)) for stage, offload in ways]
    for plan in smallest:
        if plan.fits:
            chosen = plan if wishes.micro_batch_tokens else _with_most_rows(plan)
            return replace(chosen, why=_reason(chosen))
    least = min(smallest, key=lambda plan: plan.memory.device)
    return replace(least, why=_reason(least))


def smaller(plan: Plan) -> Plan | None:
    """The plan with half of the rows a micro batch, for a device that ran out of memory; None at a single row."""
    if plan.rows == 1:
        return None
    halved = _plan(plan.training, plan.wishes, plan.room, plan.zero_stage, plan.offload, rows=plan.rows // 2)
    why = (
        f"a worker ran out of memory at {plan.micro_batch_tokens:,} tokens a micro batch, for which "
        f"{size_text(plan.memory.device)} of {size_text(plan.room.device)} had been estimated: going on with "
        f"{halved.micro_batch_tokens:,}"
    )
    return replace(halved, why=why)


def size_text(num_bytes: float) -> str:
    """Bytes for people, in powers of ten."""
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} kB"
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def parts_text(memory: MemoryParts) -> str:
    """The parts of a worker's memory that are not nothing, and their sum."""
    named = {
        "frozen": memory.frozen,
        "trained": memory.trained,
        "optimizer": memory.optimizer,
        "gradients": memory.gradients,
        "buffers": memory.buffers,
        "activations": memory.activations,
        "logits": memory.logits,
    }
    listed = " + ".join(f"{size_text(size)} {name}" for name, size in named.items() if size)
    return f"{listed} = {size_text(memory.device)}"


def _ways(training: Training, wishes: Wishes, room: Room) -> Iterator[tuple[ZeroStage, Offload]]:
    offloads: tuple[Offload, ...] = ("none", "optimizer", "parameters") if room.is_gpu else ("none",)
    for offload in offloads if wishes.offload == "auto" else (wishes.offload,):
        for stage in _stages(training, wishes, offload):
            yield stage, offload


def _stages(training: Training, wishes: Wishes, offload: Offload) -> tuple[ZeroStage, ...]:
    """ZeRO stages to try with an offload, the lowest first; DeepSpeed offloads from stage 1 on, parameters at 3."""
    if wishes.zero_stage != "auto":
        can = wishes.zero_stage >= {"none": 0, "optimizer": 1, "parameters": 3}[offload]
        return (wishes.zero_stage,) if can or wishes.offload != "auto" else ()
    if offload == "parameters":
        return (3,)
    if offload == "optimizer":
        if wishes.offload != "auto":
            return (1, 2, 3)
        return (3,) if wishes.workers > 1 else (2,)
    if wishes.workers == 1:
        return (0,)  # nothing to partition
    trained = trained_parameters(training.base, training.adapter, training.stage, training.feature_dim)
    return (2, 3) if trained > PARTITION_FROM else (0, 2, 3)


def _least_rows(wishes: Wishes) -> int:
    asked = (wishes.micro_batch_tokens or 0) // wishes.row_tokens
    return max(1, min(asked, wishes.rows_a_worker))


def _with_most_rows(plan: Plan) -> Plan:
    """As many rows as fit and help, evenly over the micro batches of a step."""
    wishes = plan.wishes
    most = max(1, min(wishes.rows_a_worker, MICRO_BATCH_TOKENS // wishes.row_tokens))
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if _with_rows(plan, middle).fits:
            low = middle
        else:
            high = middle - 1
    turns = -(-wishes.rows_a_worker // low)
    return _with_rows(plan, -(-wishes.rows_a_worker // turns))


def _with_rows(plan: Plan, rows: int) -> Plan:
    return _plan(plan.training, plan.wishes, plan.room, plan.zero_stage, plan.offload, rows=rows)


def _plan(training: Training, wishes: Wishes, room: Room, stage: ZeroStage, offload: Offload, *, rows: int) -> Plan:
    tokens = rows * wishes.row_tokens
    batch = MicroBatch(
        tokens=tokens,
        samples=max(rows, round(tokens / wishes.sample_tokens)),
        labels=tokens,  # chats with short prompts come near it
    )
    memory = worker_memory(training, Spread(workers=wishes.workers, zero_stage=stage, offload=offload), batch)
    return Plan(
        training=training, wishes=wishes, room=room, zero_stage=stage, offload=offload, rows=rows, memory=memory
    )


def _reason(plan: Plan) -> str:
    workers = "1 worker" if plan.wishes.workers == 1 else f"{plan.wishes.workers} workers"
    offload = "" if plan.offload == "none" else f", {plan.offload} in the host's memory ({size_text(plan.memory.host)})"
    sentence = (
        f"ZeRO {plan.zero_stage} on {workers}{offload}: {parts_text(plan.memory)} of "
        f"{size_text(plan.room.device)} a worker at {plan.micro_batch_tokens:,} tokens a micro batch"
    )
    if plan.zero_stage == 0 or plan.wishes.zero_stage != "auto":
        return sentence
    lower: ZeroStage = 2 if plan.zero_stage == 3 and plan.wishes.workers > 1 else 0
    other = _plan(plan.training, plan.wishes, plan.room, lower, "none", rows=plan.rows)
    return f"{sentence}; ZeRO {lower} would need {size_text(other.memory.device)}"
