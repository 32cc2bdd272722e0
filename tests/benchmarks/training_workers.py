"""Two workers against one, each on its own core: ``python -m tests.benchmarks.training_workers``.

Both worlds train the same global batches of SmolLM2-135M's shape under torchrun, one thread a rank, each rank bound to
its core, the single one too. Worlds are started in turns; in the world of two the stages take turns step by step. The
time of a step is taken between two barriers. ``cpu`` is the share of that time in which the first rank's core was its
own to use and in use: much below 1 for one worker says that the machine was busy with something else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.distributed as dist

from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.packing import Sampler
from tests.benchmarks.shapes import captions, stage1_model
from tests.benchmarks.training_table import heading, table
from workers.model_loading import choose_dtype
from workers.train.engine.build import build_engine, init_distributed
from workers.train.feed import Feed
from workers.train.step import train_step

GOAL = 1.7
TURNS, STEPS = 2, 4
ROW_TOKENS, ROWS, LAYERS = 256, 8, 30
STAGES = (0, 1, 2, 3)
CPU = torch.device("cpu")
FOUND = "FOUND "
Times = dict[int, list[tuple[float, float]]]  # seconds, and seconds of the first rank's core, of each stage's steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of a turn")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of {ROW_TOKENS} tokens of a global batch")
    chosen = parser.parse_args()
    note = f"Global batches of {chosen.rows * ROW_TOKENS} tokens, {choose_dtype('auto')}, one thread a rank."
    heading("Two workers against one", note)
    report(turns=chosen.turns, steps=chosen.steps, rows=chosen.rows)


def report(*, turns: int, steps: int, rows: int, layers: int = LAYERS, stages: Sequence[int] = STAGES) -> float:
    """Print the table; returns the gain of plain data parallel."""
    one: Times = defaultdict(list)
    two: Times = defaultdict(list)
    for _ in range(turns):
        for world_size, asked, found in ((1, stages[:1], one), (2, stages, two)):
            for stage, times in world(world_size, asked, steps=steps, rows=rows, layers=layers).items():
                found[stage] += times
    alone, alone_cpu = _median(one[0])
    plain, _ = _median(two[0])
    lines = [("1", "ZeRO 0, ours", f"{alone:.2f}", "1", "", f"{alone_cpu:.0%}")]
    for stage in stages:
        seconds, cpu = _median(two[stage])
        name = "ZeRO 0, ours" if stage == 0 else f"ZeRO {stage}, DeepSpeed"
        lines.append(("2", name, f"{seconds:.2f}", f"{alone / seconds:.2f}", f"{seconds / plain:.2f}", f"{cpu:.0%}"))
    table(["workers", "state", "seconds a step", "gain over one", "time, ZeRO 0 = 1", "cpu"], lines)
    print(f"Goal: {GOAL} or more at ZeRO 0, 1 and 2.")
    return alone / plain


def world(world_size: int, stages: Sequence[int], *, steps: int, rows: int, layers: int) -> Times:
    """Seconds of the steps of each stage, in a torchrun of its own."""
    asked = {"stages": list(stages), "steps": steps, "rows": rows, "layers": layers}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
    result = subprocess.run(
        [*command, "--module", "tests.benchmarks.training_workers", json.dumps(asked)],
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith(FOUND)]
    if result.returncode or not lines:
        raise RuntimeError(f"the ranks failed: {result.stderr[-4000:]}")
    return {int(stage): times for stage, times in json.loads(lines[-1].removeprefix(FOUND)).items()}


def be_rank(stages: Sequence[int], *, steps: int, rows: int, layers: int) -> None:
    """What each process of a torchrun does; the first one prints what it measured."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["LOCAL_RANK"]) % len(cores)]})
    torch.set_num_threads(1)
    init_distributed()
    dtype = choose_dtype("auto")
    engines = {
        stage: build_engine(
            stage1_model(dtype, num_layers=layers), Hyperparameters(), zero_stage=stage, dtype=dtype, device=CPU
        )
        for stage in stages
    }
    found: Times = defaultdict(list)
    for step in _feed(rows).steps(1, steps + 1, pin=False):
        for stage, engine in engines.items():
            dist.barrier()
            started, used = time.perf_counter(), time.process_time()
            train_step(engine, step, 1.0, CPU)
            own = time.process_time() - used
            dist.barrier()
            found[stage].append((time.perf_counter() - started, own))
    if dist.get_rank() == 0:
        print(FOUND + json.dumps({stage: times[1:] for stage, times in found.items()}), flush=True)
    dist.destroy_process_group()


def _feed(rows: int) -> Feed:
    corpus = Corpus([captions(2000)])
    return Feed(
        corpus=corpus,
        sampler=Sampler(
            sizes=corpus.sizes,
            weights=corpus.weights,
            seed=0,
            epochs=10,
            row_tokens=ROW_TOKENS,
            rows_per_step=rows,
        ),
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        micro_rows=rows // dist.get_world_size(),
        media_tokens=0,
        pad_token=0,
    )


def _median(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Of the seconds, and of the core's share."""
    return statistics.median(s for s, _ in times), statistics.median(own / s for s, own in times)


if __name__ == "__main__":
    if "RANK" in os.environ:
        be_rank(**json.loads(sys.argv[1]))
    else:
        main()
