"""Check and time training on a GPU: ``python -m tests.benchmarks.gpu > report.md``; ends in less than 8 minutes.

First whether CUDA computes what the CPU does, at a tiny size; then LLaMA-7B's shape with random weights in bf16, stage
1, features of 1024 numbers: tokens a second, the share of the card that they use, memory, levers. A section that fails
says so, and the next one goes on. ``--small`` does all of it at a tiny size, without a GPU too.

Utilisation counts 4 N FLOPs a real token, N being the weights of the frozen layers' matrices.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial

import torch

from tests.benchmarks import gpu_inside, gpu_speed
from tests.benchmarks.gpu_checks import Check, checks, zero_3_checks
from tests.benchmarks.gpu_scale import FULL, SMALL, Scale, free, gigabytes, random_llama
from tests.benchmarks.gpu_speed import PEAK, Card
from tests.benchmarks.training_table import heading, table
from tests.benchmarks.training_world import alone
from workers.model_loading import choose_dtype

SECONDS = 420  # after which no section begins
SPEED: dict[str, Callable[[Card], None]] = {
    "Micro-batches": gpu_speed.micro_batches,
    "Memory": gpu_inside.memory,
    "Where the time goes": gpu_inside.kernels,
    "Attention": gpu_speed.masks,
    "Levers": gpu_speed.levers,
    "ZeRO on one device": gpu_speed.zero_stages,
}


def main(arguments: list[str] | None = None) -> int:
    """The exit status is 1 where a check or a section failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="everything at a tiny size, on any machine")
    chosen = parser.parse_args(arguments)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu" and not chosen.small:
        print("there is no GPU here: give --small, which needs none", file=sys.stderr)
        return 1
    logging.disable(logging.WARNING)  # DeepSpeed's go to where the report goes
    heading("Training on this device", f"{choose_dtype('auto')}.")
    with alone():
        return report(device, SMALL if chosen.small else FULL, choose_dtype("auto"))


def report(device: torch.device, scale: Scale, dtype: torch.dtype) -> int:
    deadline = time.monotonic() + SECONDS
    found: list[Card] = []
    sections: dict[str, Callable[[], object]] = {
        "Checks": lambda: _passed(checks(device, dtype)),
        "Base": lambda: found.append(_card(device, scale, dtype)),
        **{title: partial(_with_first, act, found) for title, act in SPEED.items()},
        "Checks of ZeRO 3": lambda: _passed(zero_3_checks(device, dtype)),
    }
    failed = 0
    for title, act in sections.items():
        print(f"### {title}\n", flush=True)
        if time.monotonic() > deadline:
            print("Left out: the time was up.\n")
            failed = 1
            continue
        started = time.monotonic()
        try:
            act()
        except Exception as error:  # the sections after it are to be heard too
            print(f"**Failed**: {error!r:.500}\n")
            traceback.print_exc()
            failed = 1
        free(device)
        print(f"({time.monotonic() - started:.0f} s)\n", flush=True)
    return failed


def _with_first(act: Callable[[Card], None], found: list[Card]) -> None:
    act(found[0])


def _passed(found: Iterable[Check]) -> None:
    done = list(found)
    lines = [(c.what, f"{c.difference:.1e}", f"{c.limit:.0e}", "yes" if c.is_passed else "**no**") for c in done]
    table(["check", "difference", "limit", "passed"], lines)
    if not all(check.is_passed for check in done):
        raise AssertionError("a check failed")


def _card(device: torch.device, scale: Scale, dtype: torch.dtype) -> Card:
    card = gpu_speed.measured(device, scale, random_llama(scale.config, dtype, device))
    count = sum(parameter.numel() for parameter in card.llama.parameters())
    print(
        f"{count / 1e9:.2f} billion parameters, {gigabytes(device):.1f} GB; a layer's products at {scale.usual:,} "
        f"tokens reach {card.product_rate / 1e12:.1f} TFLOP/s, {card.product_rate / PEAK:.0%} of {PEAK / 1e12:.0f}.\n"
    )
    return card


if __name__ == "__main__":
    sys.exit(main())
