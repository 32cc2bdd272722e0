"""Engines around a tiny model and its data, without a store or a loop: the work of a gang's rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import CheckpointPolicy, Hyperparameters, Offload
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.data.packing import Sampler
from ibllm_core.local_store import LocalStore
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stage_proof import Snapshot, snapshot
from ibllm_core.model.stages import freeze_for
from tests.conftest import FEATURE_DIM, PAD, sample, tiny_llama
from workers.train.checkpoint.listing import Checkpoints, Opened
from workers.train.checkpoint.resume import resume
from workers.train.checkpoint.saver import Saver
from workers.train.checkpoint.state import CheckpointState
from workers.train.engine.base import Engine
from workers.train.engine.build import build_engine
from workers.train.engine.optimizer import rate_share, warmup_steps
from workers.train.feed import Feed, seed_step
from workers.train.step import train_step

SAMPLES, ROW_TOKENS = 40, 28
SETTINGS = Hyperparameters(
    n_epochs=6, row_tokens=ROW_TOKENS, rows_per_step=4, learning_rate=5e-3, gate_learning_rate=2e-2
)
RECIPE, BASE = "recipe", "base"
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Rig:
    """An engine, what it trains and what it reads."""

    engine: Engine
    model: ImageBindLLM
    feed: Feed
    settings: Hyperparameters
    dtype: torch.dtype
    before: Snapshot

    def train(self, first: int, last: int) -> list[float]:
        """Take steps as the loop does; the global loss of each."""
        total = self.feed.count(None)
        losses = []
        for step in self.feed.steps(first, last, pin=False):
            seed_step(0, step.number, self.engine.rank)
            share = rate_share(step.number - 1, total, warmup_steps(self.settings, total))
            loss = train_step(self.engine, step, share, CPU)
            dist.all_reduce(loss)
            losses.append(float(loss))
        return losses


def rig(
    *,
    fusion: Any = "token_add",
    stage: Any = "stage1",
    zero_stage: int = 0,
    dtype: torch.dtype = torch.float32,
    offload: Offload = "none",
    micro_rows: int = 4,
    settings: Hyperparameters = SETTINGS,
    bad: tuple[int, ...] = (),
) -> Rig:
    """A new engine; the samples ``bad`` have features that are no numbers."""
    torch.manual_seed(1)
    model = ImageBindLLM(tiny_llama().to(dtype), FEATURE_DIM, AdapterConfig(fusion=fusion, lora={"rank": 4}), stage)
    freeze_for(stage, model)
    corpus = Corpus([data(bad)])
    sampler = Sampler(
        sizes=corpus.sizes,
        weights=corpus.weights,
        seed=0,
        epochs=settings.n_epochs,
        row_tokens=ROW_TOKENS,
        rows_per_step=settings.rows_per_step,
    )
    feed = Feed(
        corpus=corpus,
        sampler=sampler,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        micro_rows=micro_rows,
        media_tokens=model.fusion.media_tokens,
        pad_token=PAD,
    )
    before = snapshot(model)
    engine = build_engine(model, settings, zero_stage=zero_stage, dtype=dtype, offload=offload)
    return Rig(engine=engine, model=model, feed=feed, settings=settings, dtype=dtype, before=before)


def data(bad: tuple[int, ...] = ()) -> Dataset:
    """Samples of a few words, four of five with media, in rows that hold two to four of them."""
    rng = np.random.default_rng(0)
    samples: list[CompiledSample] = [
        sample(rng.integers(1, 60, rng.integers(4, 12)).tolist(), 2, index if index % 5 else NO_FEATURE)
        for index in range(SAMPLES)
    ]
    features = rng.standard_normal((SAMPLES, FEATURE_DIM)).astype(np.float32)
    features[list(bad)] = np.nan
    return Dataset.of(samples, features, [str(index) for index in range(SAMPLES)])


def checkpoints(root: Path) -> Checkpoints:
    """The checkpoints in a folder."""
    return Checkpoints(LocalStore(root), "j", "stage1")


def save(rig: Rig, root: Path, step: int, policy: CheckpointPolicy | None = None) -> None:
    """Save, and wait for it."""
    saver = Saver(rig.engine, checkpoints(root), policy or CheckpointPolicy(keep_last=100), root / "scratch")
    saver.save(state(rig, step), b"history")
    saver.wait()


def load(rig: Rig, root: Path, said: list[str] | None = None) -> Opened | None:
    """Go on from the newest whole checkpoint."""
    on_damage = (said if said is not None else []).append
    return resume(rig.engine, checkpoints(root), root / "cache", recipe=RECIPE, base_sha256=BASE, on_damage=on_damage)


def state(rig: Rig, step: int) -> CheckpointState:
    """What a checkpoint of now says of itself."""
    skipped, in_a_row = (int(count) for count in rig.engine.health[:2].tolist())
    return CheckpointState(
        step=step,
        updates=rig.engine.updates,
        tokens=0,
        loss_scale=rig.engine.loss_scale,
        skipped_steps=skipped,
        skipped_in_a_row=in_a_row,
        recipe=RECIPE,
        base_sha256=BASE,
        world_size=rig.engine.world_size,
        zero_stage=rig.engine.zero_stage,
    )
