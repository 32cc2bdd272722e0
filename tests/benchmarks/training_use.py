"""How much of the machine a training step uses: ``python -m tests.benchmarks.training_use``.

4 N FLOPs a real token (N weights of the frozen layers' matrices, forward and for the inputs' gradients) over the time
of a whole step of ``workers/train``, beside what a layer's products alone reach on as many tokens, in alternate turns.
All else counts as waste: attention, norms, head, bind network, optimizer, padding. ``--profile`` says where the time
goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle

from torch.profiler import ProfilerActivity, profile

from ibllm_core.model.layers import compile_layers
from tests.benchmarks.attention import in_turns, layer_products
from tests.benchmarks.shapes import captions, plain_llama
from tests.benchmarks.training_ladder import Ours
from tests.benchmarks.training_table import heading, table
from tests.benchmarks.training_world import alone
from workers.model_loading import choose_dtype
from workers.train.feed import Step

GOAL = 0.6
TURNS = 5
ROW_TOKENS = 256
STEPS = (512, 1024, 2048, 4096)
LENGTHS = (40, 60)  # stamps' captions under Alpaca's prompt
SHOWN = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--tokens", type=int, nargs="*", default=STEPS, help="of a step")
    parser.add_argument("--compile", action="store_true", help="with compiled layers, as resources.compile")
    parser.add_argument("--profile", action="store_true", help="print the operators of the last of these")
    chosen = parser.parse_args()
    heading("Arithmetic used", f"Samples of {LENGTHS[0]} to {LENGTHS[1]} tokens, {choose_dtype('auto')}.")
    with alone():
        report(chosen.tokens, turns=chosen.turns, compiled=chosen.compile, profiled=chosen.profile)


def report(
    sizes: Sequence[int], *, turns: int, num_layers: int = 30, compiled: bool = False, profiled: bool = False
) -> list[float]:
    """Print the table; returns the shares."""
    lines, shares = [], []
    for tokens in sizes:
        ours = trainer(tokens, num_layers)
        if compiled:
            compile_layers(ours.model)
        steps = ours.steps(4)
        products, flops_a_token = layer_products(ours.model, tokens)
        seconds, taken = in_turns([products, partial(_next_step, ours, cycle(steps))], turns)
        real = sum(step.tokens for step in steps) / len(steps)
        rate = flops_a_token * tokens / seconds
        shares.append(flops_a_token * num_layers * real / taken / rate)
        lines.append((tokens, f"{real:.0f}", f"{real / taken:.0f}", f"{rate / 1e9:.0f}", f"{shares[-1]:.0%}"))
    table(["tokens a step", "real", "real tokens/s", "products alone, GFLOP/s", "share used"], lines)
    print(f"Goal: {GOAL:.0%} or more.")
    if profiled:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            ours.step(steps[0])
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=SHOWN, max_name_column_width=40))
    return shares


def trainer(tokens: int, num_layers: int) -> Ours:
    """Of stage 1 on random weights, with steps of so many tokens."""
    llama = plain_llama(choose_dtype("auto"), num_layers=num_layers)
    return Ours(llama, captions(600, LENGTHS, 40), row_tokens=ROW_TOKENS, rows=tokens // ROW_TOKENS)


def _next_step(ours: Ours, turning: Iterator[Step]) -> None:
    ours.step(next(turning))


if __name__ == "__main__":
    main()
