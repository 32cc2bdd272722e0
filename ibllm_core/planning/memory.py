"""The memory of one worker, part by part: pure arithmetic over sizes.

ZeRO 0 is our own engine, which keeps float32 weights, gradients and moments beside low-precision weights; stages 1 to
3 are DeepSpeed 0.19.8's, with gradients summed in float32 (at stage 1 in bf16, where the step then makes a float32
copy). P trained parameters on W workers take, in bytes:

| stage | weights | master and moments | gradients |
|---|---|---|---|
| 0 | 2P in bf16, fp16 | 12P | 4P |
| 1 | 2P (fp32: 4P) | 12P / W | 4P |
| 2 | as 1 | 12P / W | 4P / W, and the largest tensor's |
| 3 | 2P / W (fp32: 4P / W) | 12P / W | as 2 |

Stage 3 splits the frozen weights too, and gathers ``LIVE_ELEMENTS`` of them at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibllm_core.contract.job_spec import Offload, ZeroStage
from ibllm_core.planning.activations import FP32, MicroBatch, Training, activation_bytes, logit_bytes
from ibllm_core.planning.parameters import (
    frozen_parameters,
    largest_trained,
    layer_parameters,
    trained_parameters,
)

STATE_BYTES = 12  # master weight and two moments in float32
BUCKET_ELEMENTS = 1 << 25  # of gradients that are reduced together, as our engine sets it
LIVE_ELEMENTS = 1_000_000_000  # of weights that stage 3 gathers at a time: DeepSpeed's default


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the state is spread over the workers."""

    workers: int
    zero_stage: ZeroStage
    offload: Offload = "none"


@dataclass(frozen=True, kw_only=True)
class MemoryParts:
    """Bytes of one worker on its device; ``host`` is what it needs in the host's memory beside."""

    frozen: int
    trained: int
    optimizer: int
    gradients: int
    buffers: int
    activations: int
    logits: int
    host: int

    @property
    def state(self) -> int:
        """What lies there all the time."""
        return self.frozen + self.trained + self.optimizer + self.gradients

    @property
    def device(self) -> int:
        """The peak on the device."""
        return self.state + self.buffers + self.activations + self.logits


def worker_memory(training: Training, spread: Spread, batch: MicroBatch) -> MemoryParts:
    """The peak of one worker. On a CPU host and device are one memory, and all of it is counted as the device's."""
    trained, frozen = _parameters(training)
    size, low = training.element_bytes, training.element_bytes < FP32
    share = -(-trained // spread.workers) if spread.zero_stage else trained
    weights = size * (share if spread.zero_stage == 3 else trained)
    optimizer = STATE_BYTES * share
    if spread.zero_stage == 0 and not low:
        optimizer -= FP32 * trained  # the weights are their own master
    frozen_bytes = size * (-(-frozen // spread.workers) if spread.zero_stage == 3 else frozen)
    gradients, buffers = _gradients(training, spread), _buffers(training, spread)
    host = checkpoint_bytes(trained)
    if spread.offload != "none":
        host += optimizer + FP32 * share
        buffers += size * _largest(training)
        optimizer = 0
    if spread.offload == "parameters":
        host += weights + frozen_bytes
        weights = frozen_bytes = 0
    on_cpu = 0 if training.is_on_gpu else host
    return MemoryParts(
        frozen=frozen_bytes,
        trained=weights,
        optimizer=optimizer,
        gradients=gradients,
        buffers=buffers + on_cpu,
        activations=activation_bytes(training, batch),
        logits=logit_bytes(training, batch),
        host=host - on_cpu,
    )


def checkpoint_bytes(trained: int) -> int:
    """Weights and both moments in float32 on the host, while a checkpoint is on its way."""
    return STATE_BYTES * trained


def _parameters(training: Training) -> tuple[int, int]:
    counted = (training.base, training.adapter, training.stage, training.feature_dim)
    return trained_parameters(*counted), frozen_parameters(*counted)


def _largest(training: Training) -> int:
    return largest_trained(training.base, training.adapter, training.stage)


def _gradients(training: Training, spread: Spread) -> int:
    trained, _ = _parameters(training)
    size, largest = training.element_bytes, _largest(training)
    low = size if size < FP32 else 0  # a gradient in fp32 is its own sum
    if spread.zero_stage == 0:
        return FP32 * trained + low * largest
    if spread.zero_stage == 1:
        return FP32 * trained
    return min(FP32 * -(-trained // spread.workers) + size * largest, FP32 * trained)


def _buffers(training: Training, spread: Spread) -> int:
    """What DeepSpeed reduces gradients in, in float32 and the weights' precision, and gathers weights into."""
    if spread.zero_stage == 0:
        return 0
    size = training.element_bytes
    buckets = (FP32 + (size if size < FP32 else 0)) * BUCKET_ELEMENTS
    if spread.zero_stage < 3:
        return buckets
    base, trained_and_frozen = training.base, sum(_parameters(training))
    needed = max(LIVE_ELEMENTS, layer_parameters(base), base.vocab_size * base.model_dim)
    return buckets + size * min(needed, trained_and_frozen)
