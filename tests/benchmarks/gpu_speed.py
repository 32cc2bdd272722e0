"""How fast a device trains, whichever way: tables of ``gpu.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import torch
from torch.autograd import backward
from transformers import LlamaForCausalLM

from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.layers import checkpoint_activations, compile_layers
from tests.benchmarks.attention import dense_batch, dense_hidden, layer_products
from tests.benchmarks.gpu_scale import Scale, free, gigabytes, samples, seconds, trainer
from tests.benchmarks.training_ladder import Ours
from tests.benchmarks.training_table import table
from workers.train.feed import Step

PEAK = 989e12  # FLOP/s of an H100's dense bf16, as NVIDIA states it
PRODUCT_TURNS = 20
LEVERS: dict[str, tuple[Callable[[ImageBindLLM], None], ...]] = {
    "plain": (),
    "compiled layers": (compile_layers,),
    "checkpointed layers": (checkpoint_activations,),
    "both": (compile_layers, checkpoint_activations),
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """A device with a frozen base on it, and what its products reach there on a usual micro-batch."""

    device: torch.device
    scale: Scale
    llama: LlamaForCausalLM
    product_rate: float
    flops_a_token: int

    def rates(self, step: Step, taken: float) -> tuple[str, str, str, str]:
        """Seconds, tokens/s, and the shares of both rates that a step of so many seconds has."""
        rate = step.tokens / taken
        flops = rate * self.flops_a_token
        return f"{taken:.3f}", f"{rate:,.0f}", f"{flops / self.product_rate:.1%}", f"{flops / PEAK:.1%}"


RATES = ("seconds a step", "real tokens/s", "of the products' rate", f"of {PEAK / 1e12:.0f} TFLOP/s")


def measured(device: torch.device, scale: Scale, llama: LlamaForCausalLM) -> Card:
    """Measure the products of a layer, forward and for the inputs' gradients."""
    products, flops_a_token = layer_products(_Holding(llama), scale.usual)  # type: ignore[arg-type]
    rate = flops_a_token * scale.usual / seconds(products, device, PRODUCT_TURNS)
    return Card(
        device=device,
        scale=scale,
        llama=llama,
        product_rate=rate,
        flops_a_token=flops_a_token * llama.config.num_hidden_layers,
    )


def micro_batches(card: Card) -> None:
    """The same global batch in micro-batches of several sizes."""
    lines = []
    for tokens in card.scale.micro_batches:
        with training(card, micro_tokens=tokens) as ours:
            lines.append((f"{tokens:,}", *_step_times(card, ours), f"{gigabytes(card.device, peak=True):.1f}"))
    table(["tokens a micro-batch", *RATES, "peak GB"], lines)


def levers(card: Card) -> None:
    """Ways to run the layers, at the usual micro-batch."""
    lines = []
    with training(card) as ours:
        for name, changes in LEVERS.items():
            free(card.device)
            with _changed(ours.model, changes):
                lines.append((name, *_step_times(card, ours), f"{gigabytes(card.device, peak=True):.1f}"))
    table(["layers", *RATES, "peak GB"], lines)


def masks(card: Card) -> None:
    """Attention within samples against a dense mask over each row: the layers alone, forward and backward."""
    with training(card) as ours:
        (step,) = ours.steps(1)
        rows = step.rows[: card.scale.usual // card.scale.row_tokens]
        packed = step.micro_batches[0].to(card.device)
        batches, mask = dense_batch(samples(card.scale), rows, card.scale.row_tokens)
        dense = [batch.to(card.device) for batch in batches], mask.to(card.device)
        ways = {
            "within samples": lambda: backward(ours.model.packed_hidden(packed).sum()),
            "dense mask over each row": lambda: backward(dense_hidden(ours.model, dense).sum()),
        }
        lines = []
        for name, act in ways.items():
            free(card.device)
            taken = seconds(act, card.device, card.scale.turns)
            lines.append(
                (
                    name,
                    f"{taken:.3f}",
                    f"{packed.blocks.num_tokens / taken:,.0f}",
                    f"{gigabytes(card.device, peak=True):.1f}",
                )
            )
    table(["attention", "seconds", "real tokens/s", "peak GB"], lines)


def zero_stages(card: Card) -> None:
    """Our engine against DeepSpeed's, on one device: what the engine itself costs."""
    lines = []
    for stage in (0, 1, 2):
        with training(card, zero_stage=stage) as ours:
            lines.append((f"{stage}", *_step_times(card, ours), f"{gigabytes(card.device, peak=True):.1f}"))
    table(["ZeRO", *RATES, "peak GB"], lines)


@contextmanager
def training(card: Card, *, micro_tokens: int | None = None, zero_stage: int = 0) -> Iterator[Ours]:
    """A trainer, and nothing of it afterwards."""
    free(card.device)
    held = [trainer(card.llama, card.scale, card.device, micro_tokens=micro_tokens, zero_stage=zero_stage)]
    try:
        yield held[0]
    finally:
        held.clear()
        free(card.device)


@contextmanager
def _changed(model: ImageBindLLM, changes: tuple[Callable[[ImageBindLLM], None], ...]) -> Iterator[None]:
    for change in changes:
        change(model)
    try:
        yield
    finally:
        for layer in model.llama.model.layers:
            vars(layer).pop("forward", None)


def _step_times(card: Card, ours: Ours) -> tuple[str, ...]:
    """The rates of whole steps; what went wrong in place of the first, so that the others are heard too."""
    steps = ours.steps(2)
    turning = cycle(steps)
    try:
        taken = seconds(lambda: ours.step(next(turning)), card.device, card.scale.turns)
    except torch.cuda.OutOfMemoryError:
        return ("out of memory", *("" for _ in RATES[1:]))
    return card.rates(steps[0], taken)


class _Holding:
    """A base where ``layer_products`` looks for it."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        self.llama = llama
