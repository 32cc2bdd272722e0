"""A real tiny base, real compiled data and runs on them, in a folder that is a store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from ibllm_core.bases.formats import open_source
from ibllm_core.contract import layout
from ibllm_core.contract.history import Entry, entries_of
from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.data.dataset import NO_FEATURE, CompiledSample
from ibllm_core.data.shards import write_features, write_samples
from ibllm_core.local_store import LocalStore
from ibllm_core.storage import Store
from tests.conftest import FEATURE_DIM, tiny_llama, word_tokenizer
from tests.workers.train import world
from workers.compile.identity import Recipe
from workers.import_base import upload
from workers.model_loading import fetch_base

SAMPLES, ROW_TOKENS = 60, 28


def furnish(store: Store, scratch: Path, *, samples: int = SAMPLES, bad_features: tuple[int, ...] = ()) -> None:
    """Put a base ``tiny`` and the datasets of ``world.spec`` into a store."""
    base = scratch / "base"
    tiny_llama().save_pretrained(base)
    word_tokenizer().save_pretrained(base)
    upload(store, world.BASE, open_source(base))
    tokenizer_sha256 = fetch_base(store, world.BASE, scratch / "cache", with_weights=False).tokenizer_sha256
    for seed, (name, count) in enumerate(((world.DATA, samples), (world.HELD_OUT, 12))):
        bad = bad_features if name == world.DATA else ()
        _add_dataset(store, scratch / name, name, count, seed, tokenizer_sha256, bad)


def small(stage: str = "stage1", **changes: Any) -> TrainSpec:
    """A run of 24 steps or so on these."""
    settings = {"row_tokens": ROW_TOKENS, "rows_per_step": 4, "n_epochs": 4, "learning_rate": 5e-3}
    settings |= {"gate_learning_rate": 2e-2, **changes.pop("hyperparameters", {})}
    resources = {"workers": 1, "zero_stage": 0, **changes.pop("resources", {})}
    adapter = changes.pop("adapter", {"lora": {"rank": 4, "dropout": 0.1}})
    return world.spec(stage, hyperparameters=settings, resources=resources, adapter=adapter, **changes)


def start(
    root: Path, spec: TrainSpec, *, ranks: int = 1, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start ranks on a folder that is a store, under torchrun."""
    path = root / f"spec-{time.monotonic_ns()}.json"
    path.write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.Popen(
        [*command, "--module", "tests.workers.train.rank", str(root), str(path)],
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def checkpoints(root: Path, run: str = "stage1") -> list[int]:
    """Steps of the complete checkpoints, oldest first."""
    found = (root / layout.checkpoints("j", run)).glob("step-*/MANIFEST.json")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


def weights(root: Path, run: str = "stage1", step: int | None = None) -> dict[str, Tensor]:
    """Weights and moments of a checkpoint, the newest one unless told."""
    folder = root / layout.checkpoint("j", run, checkpoints(root, run)[-1] if step is None else step)
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


def logged(root: Path, run: str = "stage1") -> list[Entry]:
    """What the run logged, over all its attempts."""
    parts = sorted((root / layout.run("j", run) / "history").glob("*.jsonl"))
    return [entry for part in parts for entry in entries_of(part.read_bytes())]


def losses(root: Path, run: str = "stage1") -> dict[int, float]:
    """Training losses by their step."""
    return {e.step: e.metrics["train/loss"] for e in logged(root, run) if "train/loss" in e.metrics}


def local(root: Path) -> LocalStore:
    """The folder as a store."""
    return LocalStore(root)


def _add_dataset(
    store: Store, folder: Path, name: str, count: int, seed: int, tokenizer_sha256: str, bad: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    samples = [
        CompiledSample(
            tokens=(tokens := rng.integers(3, 19, rng.integers(4, 12)).tolist()),
            labels=[(2, len(tokens))],
            feature=index if index % 5 else NO_FEATURE,
            row=index + 1,
            instruction="what ?",
            answer="a cat",
            media=[f"m{index}"] if index % 5 else [],
        )
        for index in range(count)
    ]
    vectors = rng.standard_normal((count, 1, FEATURE_DIM)).astype(np.float32)
    vectors[list(bad)] = np.nan
    write_samples(folder / "shard-00000.parquet", samples)
    write_features(folder / "features-00000.parquet", [f"m{index}" for index in range(count)], vectors)
    recipe = Recipe(
        encoder_sha256="e",
        tokenizer_sha256=tokenizer_sha256,
        template="alpaca",
        row_tokens=ROW_TOKENS,
        context=256,
        media_tokens=0,
        grey_for_text=False,
        views=1,
    )
    tokens = sum(len(sample.tokens) for sample in samples)
    about = {
        "counts": {"samples": count, "tokens": tokens, "text_only": count // 5},
        "encoder": {"name": "imagebind"},
        "recipe": asdict(recipe),
    }
    store.upload_folder(layout.dataset(name), folder, about)
