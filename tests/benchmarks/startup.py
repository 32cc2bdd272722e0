"""From the start of a training process to its first step, part by part: ``python -m tests.benchmarks.startup``.

A rank of ``workers/train`` is started on a tiny base, so that what is seen is what every run pays: the interpreter and
its imports, and the parts that the trainer times itself. What grows with the base is then timed at SmolLM2-135M's size.
Last come the imports: in seconds of a core, which a busy machine changes little, and package by package, by the time
that their own modules take (``python -X importtime``).
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ibllm_core.bases.load import load_llama
from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.local_store import LocalStore
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stage_proof import snapshot
from ibllm_core.model.stages import freeze_for
from tests.benchmarks.shapes import FEATURE_DIM, plain_llama
from tests.benchmarks.training_table import heading, table
from tests.benchmarks.training_world import VARIABLES, alone
from tests.workers.train import tiny
from workers.model_loading import choose_dtype
from workers.train.engine.build import build_engine
from workers.train.setup import Clock

TURNS = 3
TRAINER = "workers.train.run"
IMPORTS = {  # of a worker, one after the other; the last one only where state is partitioned
    "torch": "torch",
    "transformers' LLaMA": "transformers.models.llama.modeling_llama",
    "all else of the trainer": TRAINER,
    "DeepSpeed": "deepspeed",
}
SHOWN = 16
CLOCK = re.compile(r"^[\d.]+ s to the first step: (.*)$")
FIRST_STEP = re.compile(r"^step 1 of")
IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS)
    chosen = parser.parse_args()
    heading("Start-up of a training process", f"Median of {chosen.turns} starts; files come from the page cache.")
    report(turns=chosen.turns)


def report(*, turns: int, num_layers: int = 30) -> dict[str, float]:
    """Print the tables; returns the seconds of the parts of a start."""
    starts = []
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            starts.append(start(Path(folder)))
    parts = {name: statistics.median(found[name] for found in starts) for name in starts[0]}
    table(["part", "seconds"], [(name, f"{seconds:.2f}") for name, seconds in parts.items()])
    print(f"Sum {sum(parts.values()):.1f} s. What grows with the base, at SmolLM2-135M's size:\n")
    table(["part", "seconds"], [(name, f"{seconds:.2f}") for name, seconds in of_the_base(num_layers).items()])
    cores = [import_seconds(list(IMPORTS.values())[:number]) for number in range(len(IMPORTS) + 1)]
    more = [(name, f"{after - before:.2f}") for name, before, after in zip(IMPORTS, cores, cores[1:], strict=False)]
    table(["import", "seconds of a core"], more)
    table(["package", "modules", "seconds of their own, traced"], imported([TRAINER])[:SHOWN])
    return parts


def start(folder: Path) -> dict[str, float]:
    """Seconds of each part of a real start, in their order."""
    store = LocalStore(folder)
    tiny.furnish(store, folder / "scratch")
    spec = folder / "spec.json"
    spec.write_text(tiny.small().model_dump_json())
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workers.train.rank", str(folder), str(spec)],
        env={**os.environ, **VARIABLES, "DS_ACCELERATOR": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    seen: dict[re.Pattern[str], tuple[float, re.Match[str]]] = {}
    for line in process.stdout:
        lines.append(line)
        for pattern in (CLOCK, FIRST_STEP):
            if pattern not in seen and (match := pattern.match(line)):
                seen[pattern] = time.monotonic() - started, match
    if process.wait() or len(seen) < 2:
        raise RuntimeError(f"the trainer failed:\n{''.join(lines[-30:])}")
    (ready_after, timed), (stepped_after, _) = seen[CLOCK], seen[FIRST_STEP]
    named = (part.rsplit(" ", 1) for part in timed[1].split(", "))
    parts = {name: float(seconds) for name, seconds in named}
    return {
        "interpreter, imports, process group": ready_after - sum(parts.values()),
        **parts,
        "first step": stepped_after - ready_after,
    }


def of_the_base(num_layers: int) -> dict[str, float]:
    """Seconds of what depends on the base's size."""
    dtype = choose_dtype("auto")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, alone():
        plain_llama(dtype, num_layers=num_layers).save_pretrained(folder)
        for stage in (0, 1):
            with clock.part("base: loading"):
                llama = load_llama(Path(folder), dtype)
            with clock.part("base: bind network and fusion around it"):
                model = ImageBindLLM(llama, FEATURE_DIM)
            freeze_for("stage1", model)
            with clock.part("hashes"):
                snapshot(model)
            with clock.part(f"engine, ZeRO {stage}"):
                build_engine(model, Hyperparameters(), zero_stage=stage, dtype=dtype)
    once = {"base: loading", "base: bind network and fusion around it", "hashes"}
    return {name: seconds / 2 if name in once else seconds for name, seconds in clock.parts.items()}


def import_seconds(modules: Sequence[str]) -> float:
    """Seconds of a core that a process takes which imports these and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _python("-c", "".join(f"import {module}\n" for module in modules))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imported(modules: Sequence[str]) -> list[tuple[str, int, str]]:
    """Packages with their modules and the time that those took, the longest first."""
    own: dict[str, list[int]] = defaultdict(list)
    for line in _python("-X", "importtime", "-c", f"import {', '.join(modules)}").stderr.splitlines():
        if found := IMPORT.match(line):
            own[found[2].partition(".")[0]].append(int(found[1]))
    ranked = sorted(own.items(), key=lambda item: -sum(item[1]))
    return [(name, len(times), f"{sum(times) / 1e6:.2f}") for name, times in ranked]


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True)


if __name__ == "__main__":
    main()
