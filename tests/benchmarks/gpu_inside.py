"""What a device keeps in memory while it trains, and where its time goes: tables of ``gpu.py``."""

from __future__ import annotations

from torch.profiler import ProfilerActivity, profile

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.planning.activations import MicroBatch, Training
from ibllm_core.planning.base_size import read_size
from ibllm_core.planning.memory import Spread, worker_memory
from tests.benchmarks.gpu_scale import free, gigabytes, wait
from tests.benchmarks.gpu_speed import Card, training
from tests.benchmarks.shapes import FEATURE_DIM
from tests.benchmarks.training_table import table

KERNELS = 18  # that are shown


def memory(card: Card) -> None:
    """What was allocated after each part, beside what ``ibllm_core.planning`` expects of it."""
    device, scale = card.device, card.scale
    free(device)
    base = gigabytes(device)
    with training(card) as ours:
        state = gigabytes(device)
        step = ours.steps(1)[0]
        micro = step.micro_batches[0]
        ours.step(step)
        wait(device)
        free(device)
        ours.step(step)
        wait(device)
        peak = gigabytes(device, peak=True)
    expected = worker_memory(
        Training(
            base=read_size(card.llama.config.to_dict(), "the benchmark's base"),
            adapter=AdapterConfig(),
            stage="stage1",
            feature_dim=FEATURE_DIM,
            element_bytes=card.llama.dtype.itemsize,
            is_on_gpu=device.type == "cuda",
        ),
        Spread(workers=1, zero_stage=0),
        MicroBatch(tokens=scale.usual, samples=len(micro.features_SF), labels=micro.num_labels),
    )
    at_work = expected.activations + expected.logits + expected.buffers
    rows = [
        ("frozen base", base, expected.frozen),
        ("trained weights, gradients, optimizer", state - base, expected.state - expected.frozen),
        (f"more at the peak of a step, {scale.usual:,} tokens a micro-batch", peak - state, at_work),
        ("all at the peak", peak, expected.device),
    ]
    table(
        ["part", "measured GB", "planned GB", "measured / planned"],
        [(name, f"{gb:.2f}", f"{plan / 1e9:.2f}", f"{gb * 1e9 / plan:.2f}") for name, gb, plan in rows],
    )


def kernels(card: Card) -> None:
    """Where the time of a step goes."""
    with training(card) as ours:
        step = ours.steps(1)[0]
        ours.step(step)
        wait(card.device)
        on_gpu = card.device.type == "cuda"
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
            ours.step(step)
            wait(card.device)
    spent = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in found.key_averages()
    }
    whole = sum(spent.values())
    ranked = sorted(spent.items(), key=lambda item: -item[1])[:KERNELS]
    table(
        ["kernel", "ms", "share"], [(f"`{name[:90]}`", f"{us / 1000:.2f}", f"{us / whole:.1%}") for name, us in ranked]
    )
